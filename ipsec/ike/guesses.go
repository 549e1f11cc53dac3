package ike

import (
	"net/netip"
	"slices"
	"time"
)

// Guessing of passwords: each user has a purse of tries that failures empty and
// time fills again. Who logged in lately from somewhere has a purse of its own
// there, so that nobody can lock a user out of the places that it is at.
const (
	maxTries      = 10
	tryEvery      = time.Minute
	maxPlaces     = 8
	maxGuessUsers = 4096
)

// guesses counts tries by the users that there are; names that nobody has need
// no counting.
type guesses struct{ users map[string]*guessed }

// guessed is what is counted of one user: the purse of everywhere comes first,
// then those of places known, the newest last.
type guessed struct{ purses []purse }

type purse struct {
	place netip.Prefix // not valid for everywhere else
	empty time.Time    // when it would be full again, if nothing were taken
}

// place is what an address counts as: IPv6 hosts have a /64 to choose from.
func place(a netip.Addr) netip.Prefix {
	a = a.Unmap()
	bits := 32
	if a.Is6() {
		bits = 64
	}
	p, _ := a.Prefix(bits) // not valid, and so nobody's place, for no address
	return p
}

// allow takes a try from a user's purse; wait is how long it is until there is
// one, 0 if there was.
func (g *guesses) allow(now time.Time, user string, from netip.Addr) (wait time.Duration) {
	u := g.users[user]
	if u == nil {
		g.makeRoom(now)
		u = &guessed{purses: make([]purse, 1)}
		g.users[user] = u
	}
	p := u.purse(from)
	if p.empty.Before(now) {
		p.empty = now
	}
	if next := p.empty.Add(tryEvery); next.Sub(now) > maxTries*tryEvery {
		return next.Sub(now) - maxTries*tryEvery
	}
	p.empty = p.empty.Add(tryEvery)
	return 0
}

// succeeded gives back what allow took, and remembers the place.
func (g *guesses) succeeded(now time.Time, user string, from netip.Addr) {
	u := g.users[user]
	if u == nil {
		return
	}
	p := u.purse(from)
	p.empty = p.empty.Add(-tryEvery)
	at := place(from)
	if !at.IsValid() {
		return
	}
	known := purse{place: at}
	if i := slices.IndexFunc(u.purses, func(p purse) bool { return p.place == at }); i > 0 {
		known = u.purses[i]
		u.purses = slices.Delete(u.purses, i, i+1)
	}
	u.purses = append(u.purses, known)
	if len(u.purses) > 1+maxPlaces {
		u.purses = slices.Delete(u.purses, 1, 2)
	}
}

func (u *guessed) purse(from netip.Addr) *purse {
	at := place(from)
	for i := range u.purses[1:] {
		if p := &u.purses[1+i]; p.place == at {
			return p
		}
	}
	return &u.purses[0]
}

// makeRoom forgets users of whom nothing need be remembered, and if all tried
// lately the one that waits least.
func (g *guesses) makeRoom(now time.Time) {
	if g.users == nil {
		g.users = map[string]*guessed{}
	}
	if len(g.users) < maxGuessUsers {
		return
	}
	var least string
	var until time.Time
	for name, u := range g.users {
		latest := time.Time{}
		for _, p := range u.purses {
			if p.empty.After(latest) {
				latest = p.empty
			}
		}
		if !latest.After(now) {
			delete(g.users, name)
		} else if least == "" || latest.Before(until) {
			least, until = name, latest
		}
	}
	if len(g.users) >= maxGuessUsers {
		delete(g.users, least)
	}
}
