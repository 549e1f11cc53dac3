package link

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

func TestAlarm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		var as alarms
		var a alarm
		var rang []time.Duration
		a.of, a.f = &as, func() {
			rang = append(rang, time.Since(start))
			switch len(rang) {
			case 1:
				a.in(time.Second) // from its own function
			case 2:
				time.Sleep(3 * time.Second) // set by others while it runs, below
			}
		}
		// Of what is asked for while it is set the first counts.
		a.in(2 * time.Second)
		a.in(time.Second)
		a.in(5 * time.Second)
		time.Sleep(4 * time.Second)
		a.in(time.Second) // the second run ends at 6 s: then this begins
		time.Sleep(4 * time.Second)
		synctest.Wait()
		if want := []time.Duration{2 * time.Second, 3 * time.Second, 7 * time.Second}; !slices.Equal(rang, want) {
			t.Fatalf("rang at %v, want %v", rang, want)
		}
		// Moved, to and fro; never into the past.
		for _, d := range []time.Duration{time.Second, time.Minute, -time.Hour} {
			a.move(d)
		}
		time.Sleep(time.Millisecond)
		synctest.Wait()
		if len(rang) != 4 {
			t.Fatalf("rang at %v: moved to now it did not ring", rang)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if len(rang) != 4 {
			t.Fatalf("rang at %v: it rings though it was moved", rang)
		}

		// Stop waits for what runs, and then nothing rings.
		done := 0
		var slow alarm
		slow.of, slow.f = &as, func() {
			time.Sleep(time.Second)
			done++
			slow.in(time.Second)
		}
		slow.in(time.Second)
		a.in(90 * time.Second)
		time.Sleep(1500 * time.Millisecond)
		as.stop()
		if done != 1 {
			t.Error("stop does not wait")
		}
		as.launch(func() { done++ })
		a.in(time.Second)
		time.Sleep(time.Hour)
		synctest.Wait()
		if done != 1 || len(rang) != 4 {
			t.Errorf("something runs after stop: %d, %v", done, rang)
		}
	})
}
