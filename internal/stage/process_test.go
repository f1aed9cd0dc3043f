package stage

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-security/holdfast"
)

func TestAProcessThatEndsTellsItsLastWords(t *testing.T) {
	troupe, err := NewTroupe(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer troupe.Close()
	p, err := troupe.Start("doomed", []string{"WORDS=alas"}, "sh", "-c", "echo $WORDS; exit 3")
	if err != nil {
		t.Fatal(err)
	}
	err = Until(context.Background(), 10*time.Second, time.Millisecond, "nothing", []*Process{p}, func() (bool, error) { return false, nil })
	if err == nil || !strings.Contains(err.Error(), "exit status 3") || !strings.Contains(err.Error(), "alas") {
		t.Fatalf("%v", err)
	}
}

func TestCloseEndsAProcessThatIgnoresRequests(t *testing.T) {
	troupe, err := NewTroupe(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	p, err := troupe.Start("stubborn", nil, "sh", "-c", "trap '' TERM; while :; do sleep 0.1; done")
	if err != nil {
		t.Fatal(err)
	}
	p.Stop(50 * time.Millisecond)
	if p.Exited() == nil {
		t.Fatal("still running")
	}
	troupe.Close()
}

func TestUntilGivesUpAndSaysWhy(t *testing.T) {
	err := Until(context.Background(), time.Millisecond, time.Millisecond, "the moon", nil, func() (bool, error) {
		return false, holdfast.Errorf(holdfast.Internal, "clouds")
	})
	if holdfast.KindOf(err) != holdfast.Unavailable || !strings.Contains(err.Error(), "the moon") || !strings.Contains(err.Error(), "clouds") {
		t.Fatal(err)
	}
}
