package netwatch

import (
	"net/netip"
	"testing"
	"testing/synctest"
	"time"
)

func TestFollow(t *testing.T) {
	home := Attachment{
		Source: netip.MustParseAddr("192.168.1.10"), Prefix: netip.MustParsePrefix("192.168.1.0/24"),
		Interface: "wlan0", Index: 3, Ups: 1, Gateway: netip.MustParseAddr("192.168.1.1"), GatewayLink: "02:00:00:00:00:01",
	}
	with := func(change func(*Attachment)) Attachment {
		a := home
		change(&a)
		return a
	}
	forgotten := with(func(a *Attachment) { a.GatewayLink = "" })
	for _, tt := range []struct {
		name       string
		from, next Attachment
		want       Attachment
		moved      bool
	}{
		{"nothing", home, home, home, false},
		{"link address forgotten", home, forgotten, home, false},
		{"link address learnt", forgotten, home, home, false},
		{"another router", home, with(func(a *Attachment) { a.GatewayLink = "02:00:00:00:00:02" }), with(func(a *Attachment) { a.GatewayLink = "02:00:00:00:00:02" }), true},
		{"another gateway", home, with(func(a *Attachment) { a.Gateway = a.Gateway.Next() }), with(func(a *Attachment) { a.Gateway = a.Gateway.Next() }), true},
		{"carrier lost and back", home, with(func(a *Attachment) { a.Ups++ }), with(func(a *Attachment) { a.Ups++ }), true},
		{"interface made anew", home, with(func(a *Attachment) { a.Index++ }), with(func(a *Attachment) { a.Index++ }), true},
		{"gone", home, Attachment{}, Attachment{}, true},
	} {
		if got, moved := tt.from.Follow(tt.next); got != tt.want || moved != tt.moved {
			t.Errorf("%s: got %+v, %v", tt.name, got, moved)
		}
	}
	if got := home.Kind(); got != "wlan" {
		t.Errorf("kind %q", got)
	}
}

// TestSleep lets a host sleep: once for long, and for less than counts.
func TestSleep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		total := make(chan time.Duration, 1)
		total <- 0
		slept := func() time.Duration {
			d := <-total
			total <- d
			return d
		}
		kick := make(chan struct{})
		w := sleep(sleepEvery, leastSleep, slept, kick, func() error { return nil })
		defer w.Close()
		told := func() bool {
			synctest.Wait()
			select {
			case e := <-w.Events():
				return e.Reason == ReasonResume
			default:
				return false
			}
		}
		synctest.Wait()
		total <- <-total + time.Hour
		kick <- struct{}{}
		if !told() {
			t.Error("the kick after an hour's sleep told nothing")
		}
		total <- <-total + time.Hour
		time.Sleep(sleepEvery)
		if !told() {
			t.Error("an hour's sleep went unnoticed")
		}
		total <- <-total + leastSleep/2
		close(kick)
		time.Sleep(3 * sleepEvery)
		if told() {
			t.Error("a moment was taken for sleep")
		}
	})
}

// TestWallJump has a wall clock that goes on while the monotonic one does not.
func TestWallJump(t *testing.T) {
	wall, mono := time.Unix(1000, 0), time.Duration(0)
	slept := wallJump(func() time.Time { return wall }, func() time.Duration { return mono })
	wall, mono = wall.Add(time.Minute), mono+time.Minute
	if d := slept(); d != 0 {
		t.Errorf("awake for a minute: %v", d)
	}
	wall = wall.Add(time.Hour)
	if d := slept(); d != time.Hour {
		t.Errorf("asleep for an hour: %v", d)
	}
}
