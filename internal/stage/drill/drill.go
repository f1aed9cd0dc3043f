// Package drill plays faults on purpose, on real processes: guards with their
// agents, and a server, all in a trust domain of their own that production
// hosts refuse.
//
// A drill is a cast of hosts, a fault, and what is watched. The fault is never
// a switch in a shipped program: it is content that is bad, a build that is, a
// wire that is cut, or a process that is killed.
package drill

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/stage"
	"github.com/holdfast-security/holdfast/internal/view"
	"github.com/holdfast-security/holdfast/internal/wire/apiv1"
)

// Drill is one of them.
type Drill struct {
	Name  string
	Short string // what goes wrong, in one line
	Long  string // what it shows, and what its seed decides
	cast  func(*act) cast
	bare  bool     // the hosts have no content before the fault
	serve []string // flags of the server
	play  func(context.Context, *act) error
}

// All are the drills but that of 19 July, which is larger and reports more.
var All = []Drill{silence, slow, storm, outage, leader, latent, mute}

// Options say where a drill is played and how large it is.
type Options struct {
	stage.Config
	Hosts int
	Seed  uint64
}

// Result is what a drill found. Times are in seconds, by the server's clock,
// and absent where a drill has no such thing.
type Result struct {
	apiv1.Drill
	Checks   []Check       `json:"checks"`
	Timeline []Moment      `json:"timeline"`
	Took     time.Duration `json:"took_ns"`
}

// Check is one thing a drill is to show.
type Check struct {
	What string `json:"what"`
	Held bool   `json:"held"`
}

// Moment is one line of what happened when.
type Moment struct {
	At   float64 `json:"at_s"` // seconds since the drill began
	What string  `json:"what"`
}

// act is a drill under way.
type act struct {
	*field
	o      Options
	random *rand.Rand // of the seed
	r      Result
}

// Play plays the drill, and puts its result on the record of the drill's
// server, which it verifies.
func (d Drill) Play(ctx context.Context, o Options) (Result, error) {
	began := time.Now()
	a := &act{o: o, random: rand.New(rand.NewPCG(o.Seed, 19))}
	a.r.Drill = apiv1.Drill{Name: d.Name, Fault: d.Short, Seed: o.Seed, Hosts: o.Hosts}
	err := a.run(ctx, d)
	if a.field != nil {
		a.r.Timeline = a.timeline
	}
	a.r.Took = time.Since(began)
	return a.r, err
}

func (a *act) run(ctx context.Context, d Drill) (err error) {
	c := a.o.Config
	c.Serve = d.serve
	if a.field, err = open(ctx, c); err != nil {
		return err
	}
	defer a.close()
	if err := a.enrol(ctx, d.cast(a)); err != nil {
		return err
	}
	if !d.bare {
		if err := a.settle(ctx); err != nil {
			return err
		}
	}
	if err := d.play(ctx, a); err != nil {
		return err
	}
	a.check(a.r.HostsNeedingHands == 0, "no host needs hands")
	a.r.Held = true
	for _, c := range a.r.Checks {
		a.r.Held = a.r.Held && c.Held
	}
	if err := a.Admin.Post(ctx, "/api/v1/drills", a.r.Drill, nil); err != nil {
		return err
	}
	return a.Run(ctx, stage.Publisher, nil, "log", "verify", "--key", a.Path("server/log.pub"))
}

// check notes whether something that the drill is to show was so.
func (a *act) check(held bool, format string, args ...any) {
	c := Check{What: fmt.Sprintf(format, args...), Held: held}
	a.r.Checks = append(a.r.Checks, c)
	if held {
		a.note("held: %s", c.What)
	} else {
		a.note("NOT HELD: %s", c.What)
	}
}

// times takes from a rollout that was recalled when harm was first known, when
// it halted, and when everybody was back, each since it began (the last since
// it halted).
func (a *act) times(d view.RolloutDetail) {
	a.r.Exposed = d.Admitted
	halted := d.Ended
	for _, e := range d.Timeline {
		if e.Kind == "halt" || e.Kind == "stop" {
			halted = e.At
		}
	}
	if n := len(d.Harms); n > 0 {
		a.r.Detect = since(d.Started, d.Harms[n-1].At)
	}
	a.r.Halt = since(d.Started, halted)
	a.r.Recover = since(halted, entry(d, "recalled"))
}

// entry returns when something was first put on the record about a rollout.
func entry(d view.RolloutDetail, kind string) (at time.Time) {
	for _, e := range d.Timeline { // latest first
		if e.Kind == kind {
			at = e.At
		}
	}
	return at
}

func since(from, to time.Time) *float64 {
	if from.IsZero() || to.IsZero() {
		return nil
	}
	s := to.Sub(from).Seconds()
	return &s
}

// harms counts the harm events of an arm, by kind.
func harms(d view.RolloutDetail, arm holdfast.Arm) map[holdfast.HarmKind]int {
	n := map[holdfast.HarmKind]int{}
	for _, h := range d.Harms {
		if h.Arm == arm {
			n[h.Kind]++
		}
	}
	return n
}
