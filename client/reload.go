package client

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/godwit-net/godwit/mobility"
	"github.com/godwit-net/godwit/transports"
)

// SetTransports has the encapsulations opened in another way from now on: list
// takes the place of Config.Transports and names the same encapsulations in the
// same order. A registration over all of them follows; what is open goes on
// until its answer.
func (c *Client) SetTransports(ctx context.Context, list []transports.Transport) error {
	var failed error
	err := c.owner.Do(ctx, func(now time.Time) {
		same := func(a, b transports.Transport) bool { return a.Name() == b.Name() }
		if !slices.EqualFunc(c.c.Transports, list, same) {
			failed = errors.New("other encapsulations are named")
			return
		}
		c.c.Transports = list
		switch {
		case c.registrar != nil:
			c.registrar.Start(now, mobility.TriggerAsked)
		case c.foreign != nil:
			c.moveForeign(now, mobility.TriggerAsked)
		}
	})
	if err != nil {
		return fmt.Errorf("the client does not run: %w", err)
	}
	return failed
}

// SetEarlyData changes Config.EarlyData for streams that are opened from now on.
func (c *Client) SetEarlyData(e EarlyData) error {
	if err := e.check(); err != nil {
		return err
	}
	c.early.Store(e)
	return nil
}

// check tells whether e is a policy.
func (e EarlyData) check() error {
	switch e {
	case EarlyKnown, EarlyAlways, EarlyNever:
		return nil
	}
	return fmt.Errorf("early data %q: it must be known, always or never", e)
}

// mayBeEarly tells whether a stream's first bytes need not wait for its
// destination.
func (c *Client) mayBeEarly(address string) bool {
	e := c.early.Load().(EarlyData)
	return e == EarlyAlways || e == EarlyKnown && c.reached.lately(address)
}
