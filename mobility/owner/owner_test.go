package owner

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestOwner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		o := New()
		var order []int
		var deadline time.Time
		woken := 0
		for i := range 3 {
			o.Post(func(time.Time) { order = append(order, i) })
		}
		var wg sync.WaitGroup
		wg.Go(func() {
			o.Run(ctx, func(now time.Time) time.Time {
				if !deadline.IsZero() && !now.Before(deadline) {
					woken++
					deadline = time.Time{}
				}
				return deadline
			})
		})
		synctest.Wait()
		if len(order) != 3 || order[0] != 0 || order[2] != 2 {
			t.Errorf("posted functions ran as %v", order)
		}

		start := time.Now()
		if err := o.Do(ctx, func(now time.Time) { deadline = now.Add(time.Minute) }); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if woken != 1 {
			t.Errorf("woken %d times for a deadline of %v, want once", woken, start)
		}

		// A function that never runs must not keep Do.
		block := make(chan struct{})
		o.Post(func(time.Time) { <-block })
		impatient, stop := context.WithTimeout(ctx, time.Second)
		defer stop()
		if err := o.Do(impatient, func(time.Time) {}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Do behind a function that blocks: %v", err)
		}
		n := 0
		for o.Offer(func(time.Time) {}) {
			if n++; n > Limit {
				t.Fatal("Offer never refuses")
			}
		}
		if !o.Post(func(time.Time) {}) {
			t.Error("Post refuses where only Offer may")
		}
		cancel()
		close(block)
		wg.Wait()
		if o.Post(func(time.Time) {}) {
			t.Error("Post accepts after the end")
		}
		if err := o.Do(t.Context(), func(time.Time) {}); !errors.Is(err, ErrStopped) {
			t.Errorf("Do after the end: %v", err)
		}
	})
}
