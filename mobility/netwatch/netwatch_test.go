package netwatch

import (
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestPoll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		state := make(chan string, 1)
		state <- "a"
		w := poll(pollInterval, func() string {
			s := <-state
			state <- s
			return s
		})
		set := func(s string) { <-state; state <- s }
		wait := func() (e Event, told bool) {
			time.Sleep(2 * pollInterval)
			synctest.Wait()
			select {
			case e = <-w.Events():
				return e, true
			default:
				return e, false
			}
		}
		if e, told := wait(); told {
			t.Errorf("nothing changed, and yet %v", e)
		}
		set("b")
		if e, told := wait(); !told || e.Reason != ReasonPoll {
			t.Errorf("got %v, %v", e, told)
		}
		// Two changes that nobody reads are one event.
		set("c")
		time.Sleep(pollInterval)
		set("d")
		if _, told := wait(); !told {
			t.Error("not told")
		}
		if e, told := wait(); told {
			t.Errorf("told twice: %v", e)
		}
		for range 2 {
			if err := w.Close(); err != nil {
				t.Error(err)
			}
		}
		if _, ok := <-w.Events(); ok {
			t.Error("events go on after Close")
		}
	})
}

func TestCloseEndsWatcher(t *testing.T) {
	w, err := New(nil)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		for range w.Events() {
		}
		close(done)
	}()
	for range 2 {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	}
	<-done // the leak check of TestMain sees to the Watcher's own goroutine
}

func TestLocalAddress(t *testing.T) {
	loopback := netip.MustParseAddr("127.0.0.1")
	for _, remote := range []netip.Addr{loopback, netip.MustParseAddr("::ffff:127.0.0.1")} {
		if got, err := LocalAddress(remote); err != nil || got != loopback {
			t.Errorf("%v: got %v, %v", remote, got, err)
		}
	}
	if got, err := LocalAddress(netip.Addr{}); err == nil {
		t.Errorf("no address: got %v", got)
	}
}

func TestSnapshot(t *testing.T) {
	ps, err := Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	for i, p := range ps {
		if p.Addr().IsLoopback() || p.Addr().IsLinkLocalUnicast() || !p.IsValid() {
			t.Errorf("%v is of no use", p)
		}
		if i > 0 && ps[i-1].Compare(p) > 0 {
			t.Errorf("%v is out of order", p)
		}
	}
}
