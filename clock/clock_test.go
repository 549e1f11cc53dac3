package clock

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestMoments(t *testing.T) {
	now := time.Now()
	// The wall clock does not show: these two differ in nothing else.
	if later := now.Add(time.Hour); Of(later)-Of(now) != int64(time.Hour) {
		t.Errorf("an hour is %v", time.Duration(Of(later)-Of(now)))
	}
	if at := Of(now); Since(at) < 0 || Since(at) > time.Minute {
		t.Errorf("now is %v ago", Since(at))
	}
	synctest.Test(t, func(t *testing.T) {
		at, of := Now(), Of(time.Now())
		if at <= 0 || at != of {
			t.Errorf("in a bubble now is %d and %d", at, of)
		}
		time.Sleep(time.Minute)
		if got := Since(at); got != time.Minute {
			t.Errorf("a minute in a bubble is %v", got)
		}
	})
}
