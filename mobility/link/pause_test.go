package link

import (
	"testing"
	"time"

	"github.com/godwit-net/godwit/clock"
)

func TestPause(t *testing.T) {
	start := time.Now()
	var p pause
	at := func(d time.Duration) { p.data(clock.Of(start.Add(d))) }
	want := func(why string, d time.Duration) {
		t.Helper()
		if got := time.Duration(p.longest.Load()); got != d {
			t.Errorf("%s: %v, want %v", why, got, d)
		}
	}
	at(0)
	at(30 * time.Millisecond)
	at(40 * time.Millisecond)
	want("the longest counts", 30*time.Millisecond)
	p.reset(start.Add(140*time.Millisecond), false)
	at(240 * time.Millisecond)
	want("from the last data on", 200*time.Millisecond)
	p.reset(start.Add(10*time.Second), false)
	at(11 * time.Second)
	want("an idle link has no pause", 0)
	p.reset(start.Add(31*time.Second), true)
	at(32 * time.Second)
	want("one that waits has", 21*time.Second)
}
