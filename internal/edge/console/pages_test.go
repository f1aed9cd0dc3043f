package console

import (
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/view"
)

func TestOverviewSaysHowTheFleetIs(t *testing.T) {
	a := newSite(t).as(holdfast.Analyst).get("/")
	a.has("h1", "199 of 201 hosts are protected.")
	a.has(".lead", "1 is silent", "1 is in safe mode", "2 were put back", "200 of the 201 hosts are simulated", "Rules 2026.11.21-2 is on its way")
	a.count(".dots .dot", 201)
	a.count(".dots .dot.is-real", 1)
	a.count(".dots .state-putback", 2)
	a.count(".dots .state-safe", 1)
	a.count(".dots .state-silent", 1)
	a.has("#ring-internal, #ring-early, #ring-general")
	a.has(".rollout-card", "running", "2026.11.21-2", "Evidence of harm 0.62", "halts at 1,000")
	a.count(".rollout-card .ringbars li", 3)
	a.count(".trend g", 48)
	a.count(".lines li", 10)
	a.has(".timeline", "ring general opened")
	a.has(".loss", "Events dropped 1,204")
	a.has(".clock", "Local clock", "heartbeat 1 s, window 15 s")
	a.has(".notice", "This installation approves itself.")
}

func TestNoNoticeWhereTwoPeopleApprove(t *testing.T) {
	st := newSite(t, func(c *Config) { c.SelfApproving = false; c.Clock.Name = "production" })
	a := st.as(holdfast.Viewer).get("/")
	a.count(".notice", 0)
	a.has(".clock", "Production clock")
}

func TestAnEmptyInstallationSaysWhatToDo(t *testing.T) {
	st := newSite(t)
	st.f.hosts, st.f.found, st.f.entries, st.f.bundles, st.f.rolls = nil, nil, nil, nil, nil
	v := st.as(holdfast.Administrator)
	v.get("/").has("h1", "No host has enrolled yet.")
	v.get("/rollouts").has(".empty", "Nothing has been released yet")
	v.get("/content").has(".empty", "No bundle has been published")
	v.get("/findings").has(".empty", "Nothing like that has been found")
	v.get("/fleet").has(".empty", "No host is like that")
	v.get("/record").has(".empty", "Nothing is on the record")
}

func TestFleetIsFilteredAndPaged(t *testing.T) {
	v := newSite(t).as(holdfast.Viewer)
	a := v.get("/fleet")
	a.has(".tally", "201 hosts")
	a.count("#hosts tbody tr", hostsPerPage)
	next := a.all(".pager a[rel=next]")
	if len(next) != 1 {
		t.Fatal("no next page")
	}
	for i := 0; len(next) == 1 && i < 10; i++ {
		a = v.get(attr(next[0], "href"))
		next = a.all(".pager a[rel=next]")
	}
	a.count("#hosts tbody tr", 1)
	a.has(".pager", "201–201 of 201")

	a = v.get("/fleet?state=putback")
	a.count("#hosts tbody tr", 2)
	a.has("select[name=state] option[selected]", "Put back")
	a.count("#hosts .state-putback", 2)
	v.get("/fleet?kind=real").has("#hosts tbody", "workbench", "protected")
	v.get("/fleet?kind=real").count("#hosts .sim", 0)
	v.get("/fleet?q=ubuntu&role=build").has("#hosts tbody", "ubuntu-24.04")
	a = v.get("/fleet?state=" + url.QueryEscape(string(view.Bare)))
	a.has(".empty", "No host is like that.")
}

func TestHostPageKeepsDigestsApart(t *testing.T) {
	st := newSite(t)
	i := slices.IndexFunc(st.f.hosts, func(h view.HostRow) bool { return h.State == view.PutBack })
	a := st.as(holdfast.Analyst).get("/fleet/" + string(st.f.hosts[i].ID))
	a.has(".slot-Running", "2026.11.18-1")
	a.has(".slot-Attempted", "2026.11.20-3")
	a.has(".slot-Failed", "2026.11.20-3")
	a.has(".slot-Shunned", "2026.11.20-3")
	a.has("h1", "put back", "simulated")
	a.has(".why", "worker died with signal 11")

	i = slices.IndexFunc(st.f.hosts, func(h view.HostRow) bool { return h.State == view.SafeMode })
	a = st.as(holdfast.Viewer).get("/fleet/" + string(st.f.hosts[i].ID))
	a.has("h1", "safe mode")
	a.count("#h-hostfindings", 0) // a viewer's role does not include findings
}

func TestHostPageShowsWhatRulesCost(t *testing.T) {
	st := newSite(t)
	i := slices.IndexFunc(st.f.hosts, func(h view.HostRow) bool { return len(h.Report.Costs) > 0 })
	a := st.as(holdfast.Viewer).get("/fleet/" + string(st.f.hosts[i].ID))
	a.has("#costs tr.is-suspended", ruleRows[6].Title, "suspended", "more than 200 findings")
	a.has("#costs tr.is-forgotten", "a-rule-nobody-knows", "12,044 groups or entries")
	a.has("#costs tbody tr:nth-child(3)", ruleRows[0].Title, "61 ns", "3.1 %")
	a.has("#cost-of-event", "1.4 µs an event")
}

func TestContentShowsWhyABundleWasRefused(t *testing.T) {
	v := newSite(t).as(holdfast.Viewer)
	a := v.get("/content")
	a.count("#bundles tbody tr", 5)
	a.has("#bundles tbody tr:nth-child(2)", "2026.11.21-1", "refused", "not released")
	a = v.get("/content/" + string(refused))
	a.has("#verdict tr.is-failed", "0.0.9", "refused", "12 /58")
	a.has("#failures", "0.0.9", ruleRows[7].ID, "process.namespace_pid", "21 inputs", "exercise")
	a.has("#rules tr.is-failed", ruleRows[7].Title)
	a.count("#rules tbody tr", 8)
	a.has("#rules .technique", "T1611")
	v.get("/content/"+string(newRules)).count("#failures", 0)
}

func TestRolloutShowsRingsCurvesEvidenceAndBound(t *testing.T) {
	v := newSite(t).as(holdfast.Operator)
	a := v.get("/rollouts")
	a.count("#rollouts tbody tr", 3)
	a.has("#rollouts tbody tr:nth-child(2)", "halted", "4,714")

	a = v.get("/rollouts/r-2026-0118")
	a.has("h1", "2026.11.21-2", "running")
	a.count("#rings tbody tr", 3)
	a.has("#rings #ring-internal", "5 /5", "open")
	a.has("#orgs tbody tr:nth-child(1)", "acme", "0 against 1", "at most 11")
	a.has("#orgs tbody tr:nth-child(2)", "emca", "4,714", "halted", "at least 4")
	a.count("#orgs .tone-bad", 1)
	a.count("#rings .held", 1)
	a.has("#rings #ring-general .held", "3 held back")
	a.has("#ring-general svg title", "3 more are held back by their organisations' policies")
	a.has(".why", "3 more are held back")
	a.count("#chart-exposure path.line", 1)
	a.has("#chart-evidence .llabel", "halt at 1,000", "hold at 10")
	a.has("#bound", "8.4 %", "95 % confidence", "21 hosts", "1.77 of a budget of 18.4", "12 %", "74 hosts")
	a.has("#bound", "at most 8", "6 of", "then the test halts it")
	a.has(".latent", "10 min", "63", "1 d")
	a.has("#harms tbody tr", "placebo", "silence", "3 heartbeats missed", "back")
	a.has(".timeline", "ring general opened", "approved")
	a.has(".head .actions", "Pause", "Halt and recall")
	a.has("#admissions summary", "1 block of hosts admitted")
	a.has("[aria-labelledby=h-preview]", "42 hosts run it")
	a.count("#preview tbody tr", 4)
	a.has("#preview tr.preview-free", "laboratory", "12", "now")
	a.has("#preview tr.preview-window", "trading floor", "30", "to", "maintenance window")
	a.has("#preview tr.preview-paused", "paused")
	a.has("#preview tbody tr:nth-child(4)", "default", "–", "now, the last")
	a.has("#admissions .timeline", "block 0: 5 hosts")
	for _, c := range []string{"#chart-exposure", "#chart-evidence"} {
		if !strings.Contains(attr(a.all(c)[0], "data-chart"), `"x":[`) {
			t.Errorf("%s carries no series", c)
		}
	}

	a = v.get("/rollouts/r-2026-0117")
	a.has(".recall", "6 of 6 hosts run what they had again")
	a.count("#harms tbody tr", 2)
	a.has(".head .actions", "Override the halt")
	a.has(".timeline .kind-halt", "was halted")
	a.count("#preview", 0)
	a.count("#late", 0)

	a = v.get("/rollouts/r-2026-0116")
	a.has("h1", "complete")
	a.has(".why", "5 hosts came to harm", "12 hosts wait")
	a.has("#late tbody tr:first-child", "6.12|debian-13", "12")
}

func TestARecallSaysWhoIsNotWaitedFor(t *testing.T) {
	st := newSite(t)
	v := st.as(holdfast.Viewer)
	halted := st.f.rolls[1]
	for _, c := range []struct {
		recall view.Recall
		says   []string
		waits  bool
	}{
		{view.Recall{Hosts: 6, Back: 4, Revoked: 2}, []string{"4 of 6 hosts run what they had again.", "2 were revoked before that."}, false},
		{view.Recall{Hosts: 6, Back: 4, Revoked: 1}, []string{"1 was revoked before that.", "The others return"}, true},
	} {
		halted.Recall = c.recall
		a := v.get("/rollouts/" + string(halted.ID))
		a.has(".recall", c.says...)
		if waits := strings.Contains(a.body, "The others return"); waits != c.waits {
			t.Errorf("%+v: waits %v", c.recall, waits)
		}
	}
}

func TestFindingShowsTreeRuleAndWhatMatched(t *testing.T) {
	st := newSite(t)
	v := st.as(holdfast.Analyst)
	a := v.get("/findings")
	a.has(".tally", "132 findings")
	a.count("#findings tbody tr", findingsPerPage)
	a = v.get("/findings?severity=critical&q=reverse")
	for _, row := range a.all("#findings tbody tr") {
		if !strings.Contains(textOf(row), "critical") {
			t.Errorf("a row that is not critical: %s", textOf(row))
		}
	}
	a = v.get("/findings/" + st.f.found[0].ID)
	a.has("#tree", "systemd", "nginx", "bash")
	a.has("#tree .is-it", "bash -i")
	a.count("#tree ul", 4)
	a.count("#event .is-matched mark", 2)
	a.has("#event .is-matched", "process.cmd_line")
	a.count("#why tbody tr", 3)
	a.has("#why tbody tr:nth-child(1)", "selection_parent", "process.parent_process.file.path", "endswith", "/nginx", "/usr/sbin/nginx")
	a.has("#why tbody tr:nth-child(2)", "selection_shell", "contains", "/dev/tcp/", "bash -i")
	a.has("#why tbody tr:nth-child(3)", "event_count", "gte 3 within 10m", "3")
	if href := attr(a.all("a.technique")[0], "href"); href != "https://attack.mitre.org/techniques/T1059/004" {
		t.Errorf("technique links to %s", href)
	}
	a.has(".why", "workbench")
	a.count(".why .sim", 0)
}

func TestRecordPagesBackToTheFirstEntry(t *testing.T) {
	st := newSite(t)
	v := st.as(holdfast.Viewer)
	seen, path := 0, "/record"
	for range 10 {
		a := v.get(path)
		seen += len(a.all("#entries tbody tr"))
		a.has("#checkpoint", "holdfast.example/record")
		next := a.all("a[rel=next]")
		if len(next) == 0 {
			break
		}
		path = attr(next[0], "href")
	}
	if seen != len(st.f.entries) {
		t.Errorf("paging shows %d of %d entries", seen, len(st.f.entries))
	}
	v.get("/record?kind=halt").count("#entries tbody tr", 1)
	if a := v.get("/record/export"); a.code != http.StatusOK || !strings.Contains(a.head.Get("Content-Disposition"), "holdfast-record.zip") {
		t.Errorf("export: %d %s", a.code, a.head.Get("Content-Disposition"))
	}
	v.get("/record?before="+strconv.Itoa(3)).count("#entries tbody tr", 3)
}
