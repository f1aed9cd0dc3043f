// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//
// Process life for the sensor: exec, fork and exit, read where they happen.
//
// The programs only read. They run on sched tracepoints with BTF (tp_btf), which
// need no trampoline and so load on hardened kernels too. Structures are the
// subset that is read here, relocated against the running kernel (CO-RE).

#include <linux/types.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_tracing.h>

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define KERNEL __attribute__((preserve_access_index))

struct qstr {
	const unsigned char *name;
} KERNEL;

struct super_block {
	unsigned int s_dev;
} KERNEL;

struct inode {
	struct super_block *i_sb;
	unsigned long i_ino;
	unsigned int i_nlink;
} KERNEL;

struct dentry {
	struct dentry *d_parent;
	struct qstr d_name;
} KERNEL;

struct vfsmount {
	struct dentry *mnt_root;
} KERNEL;

struct mount {
	struct mount *mnt_parent;
	struct dentry *mnt_mountpoint;
	struct vfsmount mnt;
} KERNEL;

struct path {
	struct vfsmount *mnt;
	struct dentry *dentry;
} KERNEL;

struct file {
	struct path f_path;
	struct inode *f_inode;
} KERNEL;

struct fs_struct {
	struct path root;
	struct path pwd;
} KERNEL;

struct mm_struct {
	unsigned long arg_start;
	unsigned long arg_end;
} KERNEL;

typedef struct {
	int counter;
} atomic_t;

struct tty_struct {
	char name[64];
} KERNEL;

struct signal_struct {
	atomic_t live;
	int group_exit_code;
	struct tty_struct *tty;
} KERNEL;

struct kernfs_node {
	const char *name;
} KERNEL;

struct cgroup {
	struct kernfs_node *kn;
} KERNEL;

struct css_set {
	struct cgroup *dfl_cgrp;
} KERNEL;

typedef struct {
	unsigned int val;
} kuid_t;

struct cred {
	kuid_t uid;
	kuid_t euid;
	kuid_t gid;
} KERNEL;

struct task_struct {
	int pid;
	int tgid;
	int exit_code;
	__u64 start_boottime;
	__u64 self_exec_id;
	struct task_struct *real_parent;
	struct task_struct *group_leader;
	struct mm_struct *mm;
	struct fs_struct *fs;
	struct signal_struct *signal;
	const struct cred *cred;
	struct css_set *cgroups;
} KERNEL;

struct linux_binprm {
	const char *filename;
	struct file *file;
} KERNEL;

enum kind {
	KIND_EXEC = 1,
	KIND_FORK = 2,
	KIND_EXIT = 3,
};

enum flag {
	FLAG_PATH_CUT = 1, // deeper than MAX_DEPTH, or too long
	FLAG_CWD_CUT = 2,
	FLAG_ARGS_FAULT = 4, // the arguments could not be read
};

#define MAX_DEPTH 40
#define NAME_BYTES 256	// NAME_MAX and the terminating NUL
#define FILE_BYTES 1024 // of the name given to execve
#define ARGS_BYTES 8191
#define OFFSET_MASK 8191
#define DATA_BYTES (2 * (OFFSET_MASK + 1))

// Time is CLOCK_BOOTTIME in nanoseconds, start likewise.
struct task_event {
	__u32 kind;
	__u32 pid;
	__u64 time;
	__u64 start;
	__u64 parent_start;
	__u32 parent;
	__u32 exit_code; // wait status; exit only
};

// Five strings follow in data, in the order of their lengths. Paths are
// components, innermost first, each with its NUL.
struct exec_event {
	struct task_event task;
	__u64 exec_id;
	__u64 inode;
	__u32 dev; // as the kernel writes it: major << 20 | minor
	__u32 nlink;
	__u32 uid;
	__u32 euid;
	__u32 gid;
	__u32 flags;
	__u32 args_total; // length before the cut
	__u16 file_len;
	__u16 group_len; // the name of the control group, without those above it
	__u16 path_len;
	__u16 cwd_len;
	__u16 args_len;
	__u16 unused;
	char comm[16];
	char tty[16];
};

struct exec_record {
	struct exec_event event;
	__u8 data[DATA_BYTES];
};

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 8 << 20);
} events SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct exec_record);
} scratch SEC(".maps");

// Events that found no room in the ring. Never silent: user space exports it.
__u64 dropped = 0;

// Waking the reader costs ten times what writing an event does, so it is done
// only when this much waits; the reader looks by itself every few milliseconds.
const volatile __u64 wake_bytes = 1 << 20;

static __always_inline __u64 wake(void)
{
	return bpf_ringbuf_query(&events, BPF_RB_AVAIL_DATA) >= wake_bytes ? BPF_RB_FORCE_WAKEUP : BPF_RB_NO_WAKEUP;
}

static __always_inline void lost(void)
{
	__sync_fetch_and_add(&dropped, 1);
}

// put_path writes the components of (mnt, dentry) up to the task's root and
// returns the new offset. bpf_d_path is not allowed on these tracepoints.
static __always_inline __u32 put_path(struct exec_record *r, __u32 off, struct vfsmount *mnt,
				      struct dentry *dentry, struct fs_struct *fs, __u32 cut)
{
	struct vfsmount *root_mnt = BPF_CORE_READ(fs, root.mnt);
	struct dentry *root_dentry = BPF_CORE_READ(fs, root.dentry);

	for (int i = 0; i < MAX_DEPTH; i++) {
		if (mnt == root_mnt && dentry == root_dentry)
			return off;
		struct dentry *parent = BPF_CORE_READ(dentry, d_parent);
		if (dentry == BPF_CORE_READ(mnt, mnt_root)) {
			struct mount *m = (void *)mnt - bpf_core_field_offset(struct mount, mnt);
			struct mount *up = BPF_CORE_READ(m, mnt_parent);
			if (up == m)
				return off;
			dentry = BPF_CORE_READ(m, mnt_mountpoint);
			mnt = (void *)up + bpf_core_field_offset(struct mount, mnt);
			continue;
		}
		if (off > OFFSET_MASK - NAME_BYTES)
			break;
		long n = bpf_probe_read_kernel_str(&r->data[off & OFFSET_MASK], NAME_BYTES,
						   BPF_CORE_READ(dentry, d_name.name));
		if (n > 0)
			off = (off + n) & OFFSET_MASK;
		if (parent == dentry) // a file without a place, such as a memfd
			return off;
		dentry = parent;
	}
	r->event.flags |= cut;
	return off;
}

static __always_inline void fill(struct task_event *e, enum kind kind, struct task_struct *p)
{
	struct task_struct *leader = p->group_leader;
	struct task_struct *parent = p->real_parent;

	e->kind = kind;
	e->pid = p->tgid;
	e->time = bpf_ktime_get_boot_ns();
	e->start = leader->start_boottime;
	e->parent = parent->tgid;
	e->parent_start = parent->group_leader->start_boottime;
	e->exit_code = 0;
}

SEC("tp_btf/sched_process_exec")
int BPF_PROG(on_exec, struct task_struct *p, int old_pid, struct linux_binprm *bprm)
{
	__u32 zero = 0;
	struct exec_record *r = bpf_map_lookup_elem(&scratch, &zero);
	if (!r)
		return 0;
	struct exec_event *e = &r->event;

	fill(&e->task, KIND_EXEC, p);
	e->exec_id = p->self_exec_id;
	e->uid = p->cred->uid.val;
	e->euid = p->cred->euid.val;
	e->gid = p->cred->gid.val;
	e->flags = 0;

	struct file *file = bprm->file;
	struct inode *inode = BPF_CORE_READ(file, f_inode);
	e->inode = BPF_CORE_READ(inode, i_ino);
	e->dev = BPF_CORE_READ(inode, i_sb, s_dev);
	e->nlink = BPF_CORE_READ(inode, i_nlink);

	bpf_get_current_comm(e->comm, sizeof(e->comm));
	e->tty[0] = 0;
	struct tty_struct *tty = p->signal->tty;
	if (tty)
		bpf_probe_read_kernel_str(e->tty, sizeof(e->tty), tty->name);

	__u32 off = 0, from = 0;
	long n = bpf_probe_read_kernel_str(r->data, FILE_BYTES, bprm->filename);
	if (n > 0)
		off = n & OFFSET_MASK;
	e->file_len = off;

	from = off;
	n = bpf_probe_read_kernel_str(&r->data[off & OFFSET_MASK], NAME_BYTES,
				      BPF_CORE_READ(p, cgroups, dfl_cgrp, kn, name));
	if (n > 0)
		off = (off + n) & OFFSET_MASK;
	e->group_len = off - from;

	struct fs_struct *fs = p->fs;
	from = off;
	off = put_path(r, off, BPF_CORE_READ(file, f_path.mnt), BPF_CORE_READ(file, f_path.dentry), fs, FLAG_PATH_CUT);
	e->path_len = off - from;

	from = off;
	off = put_path(r, off, BPF_CORE_READ(fs, pwd.mnt), BPF_CORE_READ(fs, pwd.dentry), fs, FLAG_CWD_CUT);
	e->cwd_len = off - from;

	unsigned long start = p->mm->arg_start;
	unsigned long len = p->mm->arg_end - start;
	e->args_total = len;
	if (len > ARGS_BYTES)
		len = ARGS_BYTES;
	off &= OFFSET_MASK;
	e->args_len = 0;
	if (len > 0) {
		if (bpf_probe_read_user(&r->data[off], len, (void *)start) == 0) {
			e->args_len = len;
			off += len;
		} else {
			e->flags |= FLAG_ARGS_FAULT;
		}
	}

	__u64 size = sizeof(struct exec_event) + off;
	if (size > sizeof(struct exec_record))
		return 0;
	if (bpf_ringbuf_output(&events, r, size, wake()))
		lost();
	return 0;
}

SEC("tp_btf/sched_process_fork")
int BPF_PROG(on_fork, struct task_struct *parent, struct task_struct *child)
{
	if (child->pid != child->tgid) // a thread
		return 0;
	struct task_event *e = bpf_ringbuf_reserve(&events, sizeof(*e), 0);
	if (!e) {
		lost();
		return 0;
	}
	fill(e, KIND_FORK, child);
	bpf_ringbuf_submit(e, wake());
	return 0;
}

SEC("tp_btf/sched_process_exit")
int BPF_PROG(on_exit, struct task_struct *p)
{
	if (p->signal->live.counter != 0) // not the last thread
		return 0;
	struct task_event *e = bpf_ringbuf_reserve(&events, sizeof(*e), 0);
	if (!e) {
		lost();
		return 0;
	}
	fill(e, KIND_EXIT, p);
	int code = p->signal->group_exit_code;
	e->exit_code = code ? code : p->exit_code;
	bpf_ringbuf_submit(e, wake());
	return 0;
}
