package server

import (
	"container/heap"
	"time"
)

// alarms wakes peers when something is due. There may be thousands of clients,
// nearly all of them idle, so only those are looked at that are due.
type alarms []alarm

// An alarm is valid as long as its peer's due is its time.
type alarm struct {
	at time.Time
	p  *peer
}

func (a alarms) Len() int           { return len(a) }
func (a alarms) Less(i, j int) bool { return a[i].at.Before(a[j].at) }
func (a alarms) Swap(i, j int)      { a[i], a[j] = a[j], a[i] }
func (a *alarms) Push(x any)        { *a = append(*a, x.(alarm)) }
func (a *alarms) Pop() any {
	old := *a
	x := old[len(old)-1]
	old[len(old)-1] = alarm{}
	*a = old[:len(old)-1]
	return x
}

// set has p woken at t; the zero time, not at all.
func (a *alarms) set(p *peer, t time.Time) {
	if t.Equal(p.due) {
		return
	}
	p.due = t
	if !t.IsZero() {
		heap.Push(a, alarm{t, p})
	}
}

// take gives the next peer that is due at now, or nil.
func (a *alarms) take(now time.Time) *peer {
	for a.next(); len(*a) > 0 && !now.Before((*a)[0].at); a.next() {
		p := heap.Pop(a).(alarm).p
		p.due = time.Time{}
		return p
	}
	return nil
}

// next is when the next peer is due; zero: none is.
func (a *alarms) next() time.Time {
	for len(*a) > 0 {
		if top := (*a)[0]; top.at.Equal(top.p.due) {
			return top.at
		}
		heap.Pop(a) // it was set anew since
	}
	return time.Time{}
}
