package mobility

import (
	"testing"
	"time"
)

// TestKeepalive learns of NATs with several timeouts while nothing else passes.
func TestKeepalive(t *testing.T) {
	for _, nat := range []time.Duration{17 * time.Second, 30 * time.Second, 2 * time.Minute, 5 * time.Minute, time.Hour} {
		start := time.Unix(1e9, 0)
		now, sent := start, start
		k := NewKeepalive(now, 0, 0)
		var answer time.Time
		asks, lost, unreachable := 0, 0, time.Duration(0)
		for now.Sub(start) < 6*time.Hour {
			now = k.NextTimeout()
			if !answer.IsZero() && answer.Before(now) {
				now = answer
				answer = time.Time{}
				k.Answered(now, sent)
				continue
			}
			r, pause := k.Advance(now, sent)
			if r == RefreshNone {
				continue
			}
			if late := now.Sub(sent) - nat; late > 0 {
				unreachable += late
			}
			sent, answer = now, time.Time{}
			switch r {
			case RefreshAsk:
				asks++
				if pause < nat {
					answer = now.Add(pause + 100*time.Millisecond)
				}
			case RefreshLost:
				lost++
			}
		}
		got := k.Interval()
		t.Logf("NAT of %v: %v after %d tests, %d of them lost, out of reach for %v", nat, got, asks, lost, unreachable)
		if most := min(nat, MaxKeepalive); got > most || got < most*3/5 {
			t.Errorf("NAT of %v: mappings are refreshed every %v", nat, got)
		}
		if asks > 20 || lost > 4 || unreachable > 2*nat {
			t.Errorf("NAT of %v: %d tests, %d of them lost, out of reach for %v", nat, asks, lost, unreachable)
		}
	}
}

// TestKeepaliveTraffic has other packets leave meanwhile: they refresh the mapping, and
// no test that they disturb teaches anything.
func TestKeepaliveTraffic(t *testing.T) {
	start := time.Unix(1e9, 0)
	k := NewKeepalive(start, 0, 0)
	sent := start.Add(5 * time.Second)
	if r, _ := k.Advance(start.Add(DefaultKeepalive), sent); r != RefreshNone || k.NextTimeout() != sent.Add(DefaultKeepalive) {
		t.Errorf("%v, next at %v", r, k.NextTimeout().Sub(start))
	}
	now := k.NextTimeout()
	if r, pause := k.Advance(now, sent); r != RefreshAsk || pause != DefaultKeepalive {
		t.Errorf("%v %v, want a test of what is done by default", r, pause)
	}
	sent = now.Add(2 * time.Second)
	if k.Answered(now.Add(DefaultKeepalive), sent) {
		t.Error("learnt from a test in which something else left")
	}
	if r, _ := k.Advance(k.NextTimeout(), sent); r == RefreshLost {
		t.Error("lost in a test in which something else left")
	}
	if kept, lost := k.Known(); kept != 0 || lost != 0 {
		t.Errorf("kept %v, lost %v, want nothing known", kept, lost)
	}
	if got := NewKeepalive(start, time.Minute, 30*time.Second).Interval(); got != DefaultKeepalive {
		t.Errorf("what contradicts itself gives %v", got)
	}
}
