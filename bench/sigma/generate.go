package main

import (
	"fmt"
	"math/rand/v2"
	"strings"

	"github.com/holdfast-security/holdfast/internal/language/ocsf"
	"github.com/holdfast-security/holdfast/internal/language/scan"
	"github.com/holdfast-security/holdfast/internal/language/sigma"
)

// generator makes events by a seed: what machines do all day, from templates
// with numbers, names and paths filled in so that no two events are equal, and
// now and then an event written to match a rule drawn at random.
type generator struct {
	rng     *rand.Rand
	rules   []*sigma.Rule // to match on purpose
	hostile float64       // share of such events
	linux   bool          // process starts on Linux only
	n       int
}

func newGenerator(seed uint64, rules []*sigma.Rule, hostile float64, linux bool) *generator {
	return &generator{rng: rand.New(rand.NewPCG(seed, 0x686f6c64)), rules: rules, hostile: hostile, linux: linux}
}

func (g *generator) pick(s []string) string { return s[g.rng.IntN(len(s))] }

// next returns the next event.
func (g *generator) next() *scan.Record {
	g.n++
	r := &scan.Record{Line: g.n}
	if g.linux {
		g.linuxProcess(r)
	} else {
		g.windows(r)
	}
	if g.rng.Float64() < g.hostile {
		g.provoke(r, g.rules[g.rng.IntN(len(g.rules))])
	}
	return r
}

func put(r *scan.Record, name, value string) {
	r.Fields = append(r.Fields, scan.Field{Name: name, Value: ocsf.StringValue(value)})
}

func number(r *scan.Record, name string, n int64) {
	r.Fields = append(r.Fields, scan.Field{Name: name, Value: ocsf.IntValue(n)})
}

// fill replaces $n (a number), $x (hexadecimal), $w (a word), $u (a user) and
// $g (a GUID) in a template.
func (g *generator) fill(template string) string {
	var b strings.Builder
	for i := 0; i < len(template); i++ {
		if template[i] != '$' || i+1 == len(template) {
			b.WriteByte(template[i])
			continue
		}
		i++
		switch template[i] {
		case 'n':
			fmt.Fprintf(&b, "%d", g.rng.IntN(1_000_000))
		case 'x':
			fmt.Fprintf(&b, "%08x", g.rng.Uint32())
		case 'w':
			b.WriteString(g.pick(words))
		case 'u':
			b.WriteString(g.pick(users))
		case 'g':
			fmt.Fprintf(&b, "{%08x-%04x-%04x-%04x-%012x}", g.rng.Uint32(), g.rng.Uint32()&0xffff, g.rng.Uint32()&0xffff, g.rng.Uint32()&0xffff, g.rng.Uint64()&0xffffffffffff)
		default:
			b.WriteByte('$')
			b.WriteByte(template[i])
		}
	}
	return b.String()
}

var (
	words = strings.Fields(`report invoice draft budget summary meeting build release index cache module service update client server worker
		journal session profile config notes archive image vector matrix signal packet stream buffer record ledger catalog sample chapter figure`)
	users = strings.Fields(`alice bob carol dave erin frank grace heidi ivan judy mallory niaj olivia peggy rupert sybil trent victor wendy`)
)

// program is an executable with the command lines it is usually started with.
type program struct {
	image string
	lines []string
}

var windowsPrograms = []program{
	{`C:\Windows\System32\svchost.exe`, []string{`C:\Windows\system32\svchost.exe -k netsvcs -p -s $w$n`, `C:\Windows\System32\svchost.exe -k LocalServiceNetworkRestricted -p -s $w`}},
	{`C:\Windows\System32\conhost.exe`, []string{`\??\C:\Windows\system32\conhost.exe 0x$x -ForceV1`}},
	{`C:\Windows\System32\taskhostw.exe`, []string{`taskhostw.exe $w$n`, `taskhostw.exe Install $g`}},
	{`C:\Windows\System32\backgroundTaskHost.exe`, []string{`"C:\Windows\system32\backgroundTaskHost.exe" -ServerName:App.AppX$x.mca`}},
	{`C:\Windows\System32\RuntimeBroker.exe`, []string{`C:\Windows\System32\RuntimeBroker.exe -Embedding`, `C:\Windows\System32\RuntimeBroker.exe -Embedding $n`}},
	{`C:\Windows\System32\SearchProtocolHost.exe`, []string{`"C:\Windows\system32\SearchProtocolHost.exe" Global\UsGthrFltPipeMssGthrPipe$n_ Global\UsGthrCtrlFltPipeMssGthrPipe$n 1 -$n "Software\Microsoft\Windows Search"`}},
	{`C:\Windows\System32\dllhost.exe`, []string{`C:\Windows\system32\DllHost.exe /Processid:$g`}},
	{`C:\Windows\System32\wbem\WmiPrvSE.exe`, []string{`C:\Windows\system32\wbem\wmiprvse.exe -secured -Embedding`}},
	{`C:\Windows\explorer.exe`, []string{`C:\Windows\Explorer.EXE`, `C:\Windows\explorer.exe /factory,$g -Embedding`}},
	{`C:\Windows\System32\cmd.exe`, []string{`C:\Windows\system32\cmd.exe /c "C:\tools\$w\$w.cmd $n"`, `cmd.exe /d /s /c "npm run $w-$n"`, `cmd /c dir D:\work\$w\$n`}},
	{`C:\Windows\System32\WindowsPowerShell\v1.0\powershell.exe`, []string{`powershell.exe -NoLogo -File C:\ops\$w-$n.ps1 -Verbose`, `powershell.exe -Command "Get-ChildItem D:\$w\$n | Measure-Object"`}},
	{`C:\Program Files\Google\Chrome\Application\chrome.exe`, []string{
		`"C:\Program Files\Google\Chrome\Application\chrome.exe" --type=renderer --field-trial-handle=$n,i,$n,$n,262144 --lang=en-US --device-scale-factor=1 --num-raster-threads=4 --renderer-client-id=$n --time-ticks-at-unix-epoch=-$n$n --launch-time-ticks=$n --mojo-platform-channel-handle=$n /prefetch:1`,
		`"C:\Program Files\Google\Chrome\Application\chrome.exe" --type=utility --utility-sub-type=network.mojom.NetworkService --lang=en-US --service-sandbox-type=none --field-trial-handle=$n /prefetch:8`,
	}},
	{`C:\Program Files (x86)\Microsoft\Edge\Application\msedge.exe`, []string{`"C:\Program Files (x86)\Microsoft\Edge\Application\msedge.exe" --type=gpu-process --gpu-preferences=$x$x$x$x --mojo-platform-channel-handle=$n /prefetch:2`}},
	{`C:\Program Files\Microsoft Office\root\Office16\WINWORD.EXE`, []string{`"C:\Program Files\Microsoft Office\Root\Office16\WINWORD.EXE" /n "C:\Users\$u\Documents\$w-$n.docx" /o ""`}},
	{`C:\Program Files\Microsoft Office\root\Office16\OUTLOOK.EXE`, []string{`"C:\Program Files\Microsoft Office\Root\Office16\OUTLOOK.EXE" /recycle`}},
	{`C:\Program Files\Git\cmd\git.exe`, []string{`git.exe log --format=%H -n $n -- src/$w/$w.go`, `git status --porcelain=v2 --branch -z D:\src\$w-$n`}},
	{`C:\Program Files\dotnet\dotnet.exe`, []string{`"dotnet.exe" exec "C:\Program Files\dotnet\sdk\8.0.$n\MSBuild.dll" /nologo /nodemode:1 /nodeReuse:true D:\src\$w\$w.csproj`}},
	{`C:\Program Files\nodejs\node.exe`, []string{`"C:\Program Files\nodejs\node.exe" D:\src\$w\node_modules\.bin\webpack --mode production --env build=$n`}},
	{`C:\Program Files\Windows Defender\MpCmdRun.exe`, []string{`"C:\Program Files\Windows Defender\MpCmdRun.exe" GetDeviceTicket -AccessKey $x-$x`}},
	{`C:\Windows\System32\msiexec.exe`, []string{`C:\Windows\system32\msiexec.exe /V`, `msiexec.exe /i "D:\deploy\$w-$n.msi" /qn`}},
	{`C:\Users\$u\AppData\Local\Programs\$w\$w.exe`, []string{`"C:\Users\$u\AppData\Local\Programs\$w\$w.exe" --updated --session=$x`}},
	{`C:\Users\$u\AppData\Local\Microsoft\OneDrive\OneDrive.exe`, []string{`"C:\Users\$u\AppData\Local\Microsoft\OneDrive\OneDrive.exe" /background /cci:$n`}},
}

var linuxPrograms = []program{
	{"/usr/bin/bash", []string{"bash -c /opt/$w/bin/$w --interval $n", "/bin/bash /usr/local/sbin/rotate-$w $n", "bash"}},
	{"/usr/bin/dash", []string{"sh -c test -d /srv/$w/$n && ls /srv/$w/$n", "/bin/sh /etc/cron.hourly/$w"}},
	{"/usr/bin/python3.11", []string{"python3 /opt/$w/manage.py $w --batch $n", "/usr/bin/python3 -m http_$w --port $n", "python3 -m venv /srv/$w-$n"}},
	{"/usr/bin/git", []string{"git fetch --prune origin refs/heads/$w-$n", "git rev-parse --verify $x$x", "git log -n $n -- $w/$w.go"}},
	{"/usr/bin/ls", []string{"ls -la /srv/$w/$n", "ls --color=auto /home/$u/$w"}},
	{"/usr/bin/cat", []string{"cat /proc/$n/status", "cat /srv/$w/$w-$n.json"}},
	{"/usr/bin/grep", []string{"grep -rn $w$n src/$w", "grep -c $w /var/log/$w.log"}},
	{"/usr/bin/sed", []string{"sed -e s/$w/$w/g -n $np /srv/$w/$w.conf"}},
	{"/usr/bin/awk", []string{"awk {print $1} /var/log/$w-$n.log"}},
	{"/usr/bin/find", []string{"find /var/cache/$w -name *.$x -mtime +$n", "find . -type f -path ./$w/$n"}},
	{"/usr/sbin/sshd", []string{"sshd: $u [priv]", "/usr/sbin/sshd -D -R"}},
	{"/usr/bin/ssh", []string{"ssh -o BatchMode=yes deploy@$w-$n.example.net true"}},
	{"/usr/bin/curl", []string{"curl -fsS https://$w.example.net/health?i=$n", "curl --silent --max-time 5 http://127.0.0.1:$n/metrics"}},
	{"/usr/bin/node", []string{"node /srv/$w/dist/$w.js --workers $n"}},
	{"/usr/lib/systemd/systemd-executor", []string{"(sd-$w) --deserialize $n --log-level info"}},
	{"/usr/bin/systemctl", []string{"systemctl is-active $w@$n.service", "systemctl show -p ActiveState $w"}},
	{"/usr/bin/apt-get", []string{"apt-get -q -y --option Dpkg::Use-Pty=0 install $w$n"}},
	{"/usr/bin/dpkg", []string{"/usr/bin/dpkg --status-fd $n --unpack /var/cache/apt/archives/$w_$n_amd64.deb"}},
	{"/usr/libexec/gcc/x86_64-linux-gnu/12/cc1", []string{"cc1 -quiet -imultiarch x86_64-linux-gnu $w-$n.c -quiet -dumpbase $w.c -mtune=generic -O2 -o /tmp/cc$x.s"}},
	{"/usr/local/go/pkg/tool/linux_amd64/compile", []string{"compile -o $WORK/b$n/_pkg_.a -trimpath $WORK/b$n=> -p example.net/$w/$w -complete -buildid $x$x/$x$x -c=2 ./$w.go ./$w_$n.go"}},
	{"/usr/bin/dockerd", []string{"dockerd -H fd:// --containerd=/run/containerd/containerd.sock --label $w=$n"}},
	{"/usr/bin/runc", []string{"runc --root /run/docker/runtime-runc/moby --log /run/containerd/io.containerd.runtime.v2.task/moby/$x$x$x$x/log.json --log-format json start $x$x$x$x"}},
	{"/usr/bin/psql", []string{"psql -h $w.db.internal -U $u -c SELECT count(*) FROM $w WHERE id > $n"}},
	{"/usr/bin/tar", []string{"tar -C /srv/$w -xzf /var/tmp/$w-$n.tar.gz"}},
	{"/usr/bin/rsync", []string{"rsync -a --delete /srv/$w/ /backup/$w/$n/"}},
}

func (g *generator) linuxProcess(r *scan.Record) {
	r.Sources = []ocsf.LogSource{{Product: "linux", Category: "process_creation", Service: "sysmon"}}
	p, parent := linuxPrograms[g.rng.IntN(len(linuxPrograms))], linuxPrograms[g.rng.IntN(8)]
	put(r, "Image", p.image)
	put(r, "CommandLine", g.fill(g.pick(p.lines)))
	put(r, "ParentImage", parent.image)
	put(r, "ParentCommandLine", g.fill(g.pick(parent.lines)))
	put(r, "CurrentDirectory", g.fill("/srv/$w/$n"))
	put(r, "User", g.pick([]string{"root", "www-data", "deploy", "postgres", g.pick(users)}))
	number(r, "LogonId", int64(g.rng.IntN(2000)))
	number(r, "ProcessId", int64(g.n))
}

func (g *generator) sysmon(r *scan.Record, id int64) {
	r.Sources, _ = ocsf.WindowsKind("Microsoft-Windows-Sysmon/Operational", id)
	put(r, "Channel", "Microsoft-Windows-Sysmon/Operational")
	put(r, "Provider_Name", "Microsoft-Windows-Sysmon")
	number(r, "EventID", id)
	put(r, "Computer", g.fill("WS-$n.corp.example.net"))
	put(r, "ProcessGuid", g.fill("$g"))
	put(r, "User", g.fill(`CORP\$u`))
}

// windows draws an event of a kind, as often as a workstation writes it.
func (g *generator) windows(r *scan.Record) {
	p := windowsPrograms[g.rng.IntN(len(windowsPrograms))]
	image := g.fill(p.image)
	switch x := g.rng.IntN(100); {
	case x < 35:
		parent := windowsPrograms[g.rng.IntN(len(windowsPrograms))]
		g.sysmon(r, 1)
		put(r, "Image", image)
		put(r, "CommandLine", g.fill(g.pick(p.lines)))
		put(r, "ParentImage", g.fill(parent.image))
		put(r, "ParentCommandLine", g.fill(g.pick(parent.lines)))
		put(r, "CurrentDirectory", g.pick([]string{`C:\Windows\system32\`, g.fill(`C:\Users\$u\`), g.fill(`D:\src\$w\`)}))
		put(r, "OriginalFileName", image[strings.LastIndexByte(image, '\\')+1:])
		put(r, "Description", g.pick([]string{"Host Process for Windows Services", "Google Chrome", "Console Window Host", g.fill("$w $w")}))
		put(r, "Product", "Microsoft® Windows® Operating System")
		put(r, "Company", "Microsoft Corporation")
		put(r, "Hashes", g.fill("SHA1=$x$x$x$x$x,MD5=$x$x$x$x,SHA256=$x$x$x$x$x$x$x$x,IMPHASH=$x$x$x$x"))
		put(r, "IntegrityLevel", g.pick([]string{"System", "Medium", "High"}))
		put(r, "LogonId", g.fill("0x$x"))
		number(r, "ProcessId", int64(g.n))
		number(r, "ParentProcessId", int64(g.rng.IntN(30000)))
	case x < 50:
		g.sysmon(r, 7)
		put(r, "Image", image)
		put(r, "ImageLoaded", g.pick([]string{`C:\Windows\System32\`, `C:\Windows\WinSxS\amd64_`, `C:\Program Files\Common Files\`})+g.fill("$w$n.dll"))
		put(r, "Signed", "true")
		put(r, "Signature", "Microsoft Windows")
		put(r, "SignatureStatus", "Valid")
		put(r, "Hashes", g.fill("SHA256=$x$x$x$x$x$x$x$x"))
	case x < 67:
		g.sysmon(r, 13)
		put(r, "EventType", "SetValue")
		put(r, "Image", image)
		put(r, "TargetObject", g.fill(g.pick([]string{
			`HKU\S-1-5-21-$n-$n-$n-1001\Software\Microsoft\Windows\CurrentVersion\Explorer\UserAssist\$g\Count\$w`,
			`HKLM\System\CurrentControlSet\Services\bam\State\UserSettings\S-1-5-21-$n-$n\$w`,
			`HKLM\SOFTWARE\Microsoft\Windows\CurrentVersion\Installer\UserData\S-1-5-18\Components\$x\$w`,
		})))
		put(r, "Details", g.pick([]string{"Binary Data", g.fill("DWORD (0x$x)"), g.fill(`C:\Program Files\$w\$w.dll`)}))
	case x < 82:
		g.sysmon(r, 11)
		put(r, "Image", image)
		put(r, "TargetFilename", g.fill(g.pick([]string{
			`C:\Users\$u\AppData\Local\Google\Chrome\User Data\Default\Cache\f_$x`, `C:\Windows\Prefetch\$w-$x.pf`, `D:\src\$w\obj\$w$n.o`, `C:\ProgramData\$w\$w-$n.log`,
		})))
	case x < 89:
		g.sysmon(r, 3)
		put(r, "Image", image)
		put(r, "Protocol", "tcp")
		put(r, "Initiated", g.pick([]string{"true", "false"}))
		put(r, "SourceIp", fmt.Sprintf("10.%d.%d.%d", g.rng.IntN(256), g.rng.IntN(256), g.rng.IntN(256)))
		put(r, "DestinationIp", fmt.Sprintf("%d.%d.%d.%d", 1+g.rng.IntN(220), g.rng.IntN(256), g.rng.IntN(256), g.rng.IntN(256)))
		number(r, "SourcePort", int64(49152+g.rng.IntN(16000)))
		number(r, "DestinationPort", []int64{443, 443, 443, 80, 53, 8443}[g.rng.IntN(6)])
		put(r, "DestinationHostname", g.fill("$w-$n.cdn.example.net"))
	case x < 93:
		g.sysmon(r, 22)
		put(r, "Image", image)
		put(r, "QueryName", g.fill("$w$n.$w.example.net"))
		put(r, "QueryStatus", "0")
	case x < 98:
		id := []int64{4624, 4634, 4672, 4688, 5156, 4663}[g.rng.IntN(6)]
		r.Sources, _ = ocsf.WindowsKind("Security", id)
		put(r, "Channel", "Security")
		put(r, "Provider_Name", "Microsoft-Windows-Security-Auditing")
		number(r, "EventID", id)
		put(r, "SubjectUserName", g.pick(users))
		put(r, "TargetUserName", g.pick(users))
		number(r, "LogonType", int64(2+g.rng.IntN(9)))
		put(r, "IpAddress", fmt.Sprintf("10.%d.%d.%d", g.rng.IntN(256), g.rng.IntN(256), g.rng.IntN(256)))
		put(r, "ProcessName", image)
		put(r, "WorkstationName", g.fill("WS-$n"))
	default:
		r.Sources, _ = ocsf.WindowsKind("Microsoft-Windows-PowerShell/Operational", 4104)
		put(r, "Channel", "Microsoft-Windows-PowerShell/Operational")
		number(r, "EventID", 4104)
		put(r, "ScriptBlockText", g.fill("function Get-$w { param([string]$Path = 'D:\\$w\\$n') Get-ChildItem $Path -Recurse | Where-Object { $_.Length -gt $n } | ForEach-Object { Write-Output $_.FullName } }\nGet-$w | Sort-Object | Export-Csv D:\\$w\\$n.csv"))
		put(r, "ScriptBlockId", g.fill("$g"))
	}
}

// provoke rewrites the event so that it has one value of each line of the rule
// that its condition does not exclude, and is of the rule's log source where
// the generator makes such events.
func (g *generator) provoke(r *scan.Record, rule *sigma.Rule) {
	if !g.linux && !accepts(rule, r.Sources) {
		if rule.LogSource.Product != "windows" {
			return
		}
		r.Fields = r.Fields[:0]
		r.Sources = []ocsf.LogSource{{Product: "windows"}}
		for _, kind := range ocsf.WindowsKinds() {
			if accepts(rule, kind) {
				r.Sources = kind
				break
			}
		}
	}
	for _, s := range rule.Detection.Searches {
		if !strings.HasPrefix(s.Name, "filter") {
			g.satisfy(r, &s.Node)
		}
	}
}

func accepts(rule *sigma.Rule, sources []ocsf.LogSource) bool {
	for _, s := range sources {
		if rule.LogSource.Accepts(s) {
			return true
		}
	}
	return false
}

func (g *generator) satisfy(r *scan.Record, n *sigma.Node) {
	if n.Item != nil {
		g.satisfyItem(r, n.Item)
		return
	}
	if !n.All && len(n.Kids) > 0 {
		g.satisfy(r, &n.Kids[g.rng.IntN(len(n.Kids))])
		return
	}
	for i := range n.Kids {
		g.satisfy(r, &n.Kids[i])
	}
}

func (g *generator) satisfyItem(r *scan.Record, item *sigma.Item) {
	tests, problems := item.Tests(nil)
	if len(problems) > 0 || item.Field == "" || tests.Negate {
		return
	}
	chosen := tests.Values
	if !tests.All {
		chosen = chosen[g.rng.IntN(len(chosen)):][:1]
	}
	for _, alternatives := range chosen {
		if t := alternatives[g.rng.IntN(len(alternatives))]; t.Op == sigma.Match {
			g.write(r, item.Field, t.Pattern)
		} else if t.Op == sigma.Equal && t.Integer {
			g.set(r, item.Field, ocsf.IntValue(t.Int))
		}
	}
}

// write puts a text that fits the pattern into a field, keeping what another
// pattern already put there.
func (g *generator) write(r *scan.Record, field string, p sigma.Pattern) {
	text := ""
	for i, part := range p {
		switch part.Kind {
		case sigma.Plain:
			text += part.Text
		case sigma.AnyOne:
			text += "x"
		case sigma.AnyDash:
			text += "-"
		case sigma.AnyRun:
			if i > 0 && i < len(p)-1 {
				text += g.fill("$w$n")
			}
		}
	}
	old := ""
	for _, f := range r.Fields {
		if f.Name == field {
			old = f.Value.Text()
		}
	}
	if len(p) > 0 && old != "" {
		switch before, after := p[0].Kind == sigma.AnyRun, p[len(p)-1].Kind == sigma.AnyRun; {
		case before && after:
			text = old + text
		case before:
			text = old[:strings.LastIndexAny(old, `\/`)+1] + strings.TrimLeft(text, `\/`)
		}
	}
	g.set(r, field, ocsf.StringValue(text))
}

func (g *generator) set(r *scan.Record, field string, v ocsf.Value) {
	for i := range r.Fields {
		if r.Fields[i].Name == field {
			r.Fields[i].Value = v
			return
		}
	}
	r.Fields = append(r.Fields, scan.Field{Name: field, Value: v})
}
