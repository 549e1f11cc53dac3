package server

import (
	"math/rand/v2"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Peers come due in order, each at the time that was set last.
func TestAlarms(t *testing.T) {
	var a alarms
	start := time.Unix(1e9, 0)
	peers := make([]*peer, 50)
	for i := range peers {
		peers[i] = &peer{}
	}
	r := rand.New(rand.NewPCG(1, 2))
	want := make(map[*peer]time.Time)
	for range 1000 {
		p := peers[r.IntN(len(peers))]
		at := start.Add(time.Duration(r.IntN(1000)) * time.Millisecond)
		if r.IntN(10) == 0 {
			at = time.Time{}
		}
		a.set(p, at)
		want[p] = at
	}
	var last time.Time
	for now := start; now.Before(start.Add(2 * time.Second)); now = now.Add(7 * time.Millisecond) {
		for p := a.take(now); p != nil; p = a.take(now) {
			at := want[p]
			if at.IsZero() || now.Before(at) || now.Sub(at) > 7*time.Millisecond || at.Before(last) {
				t.Fatalf("woken at %v for %v after %v", now.Sub(start), at.Sub(start), last.Sub(start))
			}
			last = at
			delete(want, p)
		}
	}
	for _, at := range want {
		if !at.IsZero() {
			t.Errorf("never woken for %v", at.Sub(start))
		}
	}
	if !a.next().IsZero() || len(a) != 0 {
		t.Errorf("%d alarms are left", len(a))
	}
}
