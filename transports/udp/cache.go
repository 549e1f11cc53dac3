package udp

import (
	"time"
	"weak"
)

// A cache finds carriers by their addresses. It keeps those heard of lately and
// only points weakly at the others, so that one in use elsewhere is found again
// and one that nobody uses costs nothing.
type cache struct {
	max  int
	idle time.Duration

	live map[peer]*served
	// front was heard of last, back longest ago.
	front, back *served

	// left are the ones forgotten, as long as somebody keeps them.
	left    map[peer]weak.Pointer[served]
	sweepAt int // size of left at which the dead ones are swept
}

const minSweep = 1024

func newCache(size int, idle time.Duration) *cache {
	return &cache{
		max: size, idle: idle, sweepAt: minSweep,
		live: make(map[peer]*served), left: make(map[peer]weak.Pointer[served]),
	}
}

// get gives the carrier of p, or nil, and notes that it was heard of.
func (k *cache) get(p peer, now time.Time) *served {
	k.expire(now)
	if c := k.front; c != nil && c.peer == p { // the usual case: a run goes on
		c.heard = now
		return c
	}
	if c := k.live[p]; c != nil {
		k.unlink(c)
		k.push(c, now)
		return c
	}
	if w, ok := k.left[p]; ok {
		delete(k.left, p)
		if c := w.Value(); c != nil {
			k.add(c, now)
			return c
		}
	}
	return nil
}

func (k *cache) add(c *served, now time.Time) {
	for len(k.live) >= k.max {
		k.forget(k.back)
	}
	k.live[c.peer] = c
	k.push(c, now)
}

func (k *cache) remove(c *served) {
	if k.live[c.peer] == c {
		delete(k.live, c.peer)
		k.unlink(c)
	}
	if w, ok := k.left[c.peer]; ok && w.Value() == c {
		delete(k.left, c.peer)
	}
}

// all gives every carrier that is known or kept somewhere.
func (k *cache) all() []*served {
	var all []*served
	for _, c := range k.live {
		all = append(all, c)
	}
	for _, w := range k.left {
		if c := w.Value(); c != nil {
			all = append(all, c)
		}
	}
	return all
}

func (k *cache) expire(now time.Time) {
	for k.back != nil && now.Sub(k.back.heard) > k.idle {
		k.forget(k.back)
	}
}

func (k *cache) forget(c *served) {
	delete(k.live, c.peer)
	k.unlink(c)
	k.left[c.peer] = weak.Make(c)
	if len(k.left) < k.sweepAt {
		return
	}
	for p, w := range k.left {
		if w.Value() == nil {
			delete(k.left, p)
		}
	}
	k.sweepAt = max(minSweep, 2*len(k.left))
}

func (k *cache) push(c *served, now time.Time) {
	c.heard = now
	c.next, c.prev = k.front, nil
	if k.front != nil {
		k.front.prev = c
	} else {
		k.back = c
	}
	k.front = c
}

func (k *cache) unlink(c *served) {
	if c.prev != nil {
		c.prev.next = c.next
	} else {
		k.front = c.next
	}
	if c.next != nil {
		c.next.prev = c.prev
	} else {
		k.back = c.prev
	}
	c.prev, c.next = nil, nil
}
