package tuf_test

import (
	"context"
	"flag"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/trust/tuf"
)

// TestMain asks the property less often than rapid's default, since each step
// writes and syncs a dozen files; -rapid.checks on the command line still decides.
func TestMain(m *testing.M) {
	if err := flag.Set("rapid.checks", "4"); err != nil {
		panic(err)
	}
	m.Run()
}

// Whatever an honest server goes through, hosts are never refused, and see what it
// approved last: a host that looks at every step, one that looks now and then, and
// one that starts from nothing.
func TestPropertyHonestServerIsAlwaysBelieved(t *testing.T) {
	in := install(t, tuf.Production)
	var all []holdfast.Digest
	for i := range 3 {
		all = append(all, in.release(i))
	}
	offline, err := in.desk.Files()
	in.must(err)
	rings := []string{"internal", "early", "general"}
	rapid.Check(t, func(rt *rapid.T) {
		in.must(os.RemoveAll(in.public))
		in.now = in.now.Add(time.Hour)
		in.open()
		in.must(in.online.Accept(offline, in.now))
		want := map[string][]tuf.Approval{}
		for _, r := range rings {
			want[r] = nil
		}
		in.must(in.online.Approve(want, in.now))
		always, seldom := in.client(), in.client()
		for range rapid.IntRange(1, 12).Draw(rt, "steps") {
			in.now = in.now.Add(time.Duration(rapid.IntRange(1, 100_000).Draw(rt, "seconds")) * time.Second)
			// A server signs again by itself, at least once in half a lifetime.
			in.must(in.online.Refresh(in.now))
			switch rapid.SampledFrom([]string{"approve", "approve", "same", "restart", "lose", "lose timestamp"}).Draw(rt, "step") {
			case "approve":
				ring := rapid.SampledFrom(rings).Draw(rt, "ring")
				want[ring] = nil
				for _, d := range rapid.Permutation(all).Draw(rt, "order")[:rapid.IntRange(0, len(all)).Draw(rt, "how many")] {
					want[ring] = append(want[ring], current(d))
				}
				slices.SortFunc(want[ring], func(a, b tuf.Approval) int { return strings.Compare(string(a.Digest), string(b.Digest)) })
				in.must(in.online.Approve(map[string][]tuf.Approval{ring: want[ring]}, in.now))
			case "same":
				in.must(in.online.Accept(offline, in.now))
				in.must(in.online.Approve(want, in.now))
			case "restart":
				in.open()
			case "lose":
				in.must(os.RemoveAll(in.public))
				in.open()
				in.must(in.online.Accept(offline, in.now))
				in.must(in.online.Approve(want, in.now))
			case "lose timestamp":
				in.must(os.Remove(in.public + "/director/timestamp.json"))
				in.open()
				in.must(in.online.Approve(want, in.now))
			}
			hosts := map[string]*tuf.Client{"always": always, "new": in.client()}
			if rapid.Bool().Draw(rt, "looks") {
				hosts["seldom"] = seldom
			}
			for _, name := range slices.Sorted(maps.Keys(hosts)) {
				v, err := hosts[name].Refresh(context.Background(), in.now)
				if err != nil {
					rt.Fatalf("host %q: %v", name, err)
				}
				if diff := cmp.Diff(want, v.Approvals); diff != "" {
					rt.Fatalf("host %q (-approved +seen):\n%s", name, diff)
				}
			}
		}
	})
}
