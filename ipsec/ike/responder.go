package ike

import (
	"bytes"
	"container/heap"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"log/slog"
	"net/netip"
	"time"

	"github.com/godwit-net/godwit/ipsec/ike/message"
)

// A Responder answers initiators and holds their Sessions. One goroutine owns
// it and them.
type Responder struct {
	c      ResponderConfig
	rand   entropy
	jar    cookieJar
	events []SessionEvent

	bySPI    map[uint64]*Session // by our SPI of each of its IKE SAs
	byInit   map[initKey]*Session
	byRemote map[string]map[*Session]struct{} // established, by the peer's identity
	answers  bucket                           // to what belongs to no session
	halfOpen int                              // sessions that never were established
	wakes    wakeHeap

	source  netip.AddrPort       // of the message in hand
	guesses guesses              // of passwords
	logins  map[netip.Prefix]int // under way, by where they come from
}

// An initKey names an IKE_SA_INIT request: the initiator's SPI and the hash of
// its nonce. There is at most one session for each, however many copies and
// variants of the request come in.
type initKey struct {
	spi   uint64
	nonce [sha256.Size]byte
}

// A SessionEvent is an Event of one Session of a Responder.
type SessionEvent struct {
	Session *Session // nil for a Send that belongs to none
	Event   Event
}

// NewResponder makes a Responder; it fails on a configuration that cannot work.
func NewResponder(c ResponderConfig) (*Responder, error) {
	if err := c.prepare(); err != nil {
		return nil, err
	}
	return &Responder{
		c: c, rand: entropy{c.Random},
		bySPI: map[uint64]*Session{}, byInit: map[initKey]*Session{}, byRemote: map[string]map[*Session]struct{}{},
	}, nil
}

// Receive takes a message from the network, which may be anything. It keeps
// nothing of msg. Responses go to path, also when they are repeated for a
// request that came by another path before. source is where the message came
// from, for the log; the cookie does not depend on it.
//
// A Session that fails in IKE_AUTH reports Closed alone; one whose initiator
// falls silent before reports nothing.
func (r *Responder) Receive(now time.Time, msg []byte, path Path, source netip.AddrPort) {
	r.source = source
	h, err := message.ParseHeader(msg)
	var version *message.VersionError
	switch {
	case errors.As(err, &version):
		if version.Major > 2 && h.InitiatorSPI != 0 && !h.Response() {
			// Section 2.5
			r.reply(&h, path, &message.Notify{NotifyType: message.InvalidMajorVersion})
		}
		return
	case err != nil:
		r.dropped(source, err)
		return
	}
	if h.Exchange == message.IKESAInit && !h.Response() {
		if h.FromInitiator() && h.ResponderSPI == 0 && h.ID == 0 && len(msg) <= maxInit {
			if err := r.init(now, &h, msg, path); err != nil {
				r.dropped(source, err)
			}
		}
		return
	}
	spi := h.InitiatorSPI
	if h.FromInitiator() {
		spi = h.ResponderSPI
	}
	if s := r.bySPI[spi]; s != nil {
		s.Receive(now, msg, path)
		return
	}
	r.lost(now, &h, len(msg), path)
}

func (r *Responder) dropped(source netip.AddrPort, err error) {
	r.c.Logger.LogAttrs(context.Background(), slog.LevelDebug, "message dropped",
		slog.String("source", source.String()), slog.Any("err", err))
}

// reply answers IKE_SA_INIT without making anything.
func (r *Responder) reply(h *message.Header, path Path, p message.Payload) {
	m := message.Message{
		Header: message.Header{
			InitiatorSPI: h.InitiatorSPI, Version: message.Version2,
			Exchange: h.Exchange, Flags: message.FlagResponse, ID: h.ID,
		},
		Payloads: []message.Payload{p},
	}
	if b, err := m.AppendBinary(nil); err == nil {
		r.events = append(r.events, SessionEvent{nil, Send{Message: b, Path: path}})
	}
}

// init answers:
//
//	HDR(SPIi=xxx, SPIr=0), [N(COOKIE),] SAi1, KEi, Ni, N*, V* -->
//
// Nothing is kept before the cookie, if one is due, is back, and no key
// exchange is computed before that either.
func (r *Responder) init(now time.Time, h *message.Header, msg []byte, path Path) error {
	m, err := message.Parse(msg)
	if err != nil {
		var critical *message.CriticalError
		if errors.As(err, &critical) {
			r.reply(h, path, &message.Notify{NotifyType: message.UnsupportedCriticalPayload, Data: []byte{byte(critical.Type)}})
		}
		return err
	}
	offered, ok1 := message.Find[*message.SA](m.Payloads)
	ke, ok2 := message.Find[*message.KE](m.Payloads)
	nonce, ok3 := message.Find[*message.Nonce](m.Payloads)
	if !ok1 || !ok2 || !ok3 {
		return message.ErrSyntax
	}
	key := initKey{h.InitiatorSPI, sha256.Sum256(nonce.Data)}
	shown := message.FindNotify(m.Payloads, message.Cookie)
	good := shown != nil && r.jar.good(now, r.rand, shown.Data, nonce.Data, h.InitiatorSPI)
	if s := r.byInit[key]; s != nil {
		if sha256.Sum256(msg) == s.initHash {
			s.emit(Send{Message: s.initAnswer, Path: path, Retransmission: true})
			return nil
		}
		if s.state != stateInit || !good || s.cookie {
			return errors.New("another request with the SPI and nonce of an earlier one")
		}
		// We asked for a cookie on one path and let a copy without one pass on
		// another; the initiator goes on with the cookie.
		r.forget(s)
	}
	if r.halfOpen >= r.c.HalfOpenLimit {
		return errors.New("too many half-open SAs")
	}
	if !good && (r.c.CookieThreshold < 0 || r.halfOpen >= r.c.CookieThreshold) {
		r.reply(h, path, &message.Notify{NotifyType: message.Cookie, Data: r.jar.bake(now, r.rand, nonce.Data, h.InitiatorSPI)})
		return nil
	}
	proposals := r.c.IKEProposals
	if message.FindNotify(m.Payloads, message.IntermediateSupported) == nil {
		// "the responder MUST treat this as if the initiator did not propose any
		// additional key exchanges". RFC 9370, Section 2.2.1
		proposals = classical(proposals)
	}
	c, p, ok := choose(proposals, offered, message.ProtocolIKE, true, Group(ke.Group))
	if !ok {
		r.reply(h, path, &message.Notify{NotifyType: message.NoProposalChosen})
		return errors.New("no proposal fits")
	}
	if c.group != Group(ke.Group) {
		r.reply(h, path, &message.Notify{NotifyType: message.InvalidKEPayload, Data: binary.BigEndian.AppendUint16(nil, uint16(c.group))})
		return nil
	}
	public, shared, err := c.group.answer(r.rand, ke.Data)
	if err != nil {
		return err
	}
	s := &Session{
		c: r.c.Config, rand: r.rand, resp: r, role: RoleResponder, state: stateInit,
		expire: now.Add(halfOpenLifetime), index: -1, key: key, cookie: good,
	}
	// What the session keeps must not point into msg.
	own := bytes.Clone(msg)
	if m, err = message.Parse(own); err != nil {
		return err
	}
	nonce, _ = message.Find[*message.Nonce](m.Payloads)
	if err := s.answerInit(h, own, m.Payloads, c, p, public, shared, nonce.Data); err != nil {
		return err
	}
	s.initHash, s.initAnswer = sha256.Sum256(msg), s.first.response
	r.byInit[key] = s
	r.halfOpen++
	r.schedule(s)
	s.emit(Send{Message: s.first.response, Path: path})
	return nil
}

// sessionEstablished counts a session among those that stay.
func (r *Responder) sessionEstablished(s *Session) {
	r.loginEnds(s)
	r.halfOpen--
	s.authenticated = true
	k := s.remote.key()
	if r.byRemote[k] == nil {
		r.byRemote[k] = map[*Session]struct{}{}
	}
	r.byRemote[k][s] = struct{}{}
}

func (r *Responder) sessionClosed(s *Session) {
	r.loginEnds(s)
	if !s.authenticated {
		return // it counts as half open until it is forgotten
	}
	k := s.remote.key()
	delete(r.byRemote[k], s)
	if len(r.byRemote[k]) == 0 {
		delete(r.byRemote, k)
	}
}

// initialContact closes what is left of the peer's earlier lives: "this IKE SA
// is the only IKE SA currently active between the authenticated identities"
// (RFC 7296, Section 2.4). The peer has forgotten them and is not told.
func (r *Responder) initialContact(now time.Time, s *Session) {
	for old := range r.byRemote[s.remote.key()] {
		old.close(now, ErrReplaced)
		r.schedule(old)
	}
}

// key makes an identity fit for a map.
func (i Identity) key() string { return string(append([]byte{byte(i.Type)}, i.Data...)) }

// forget drops a session from all tables.
func (r *Responder) forget(s *Session) {
	r.loginEnds(s)
	if !s.authenticated {
		r.halfOpen--
	}
	for _, sa := range s.sas {
		delete(r.bySPI, sa.localSPI())
	}
	for _, spi := range s.claimed {
		delete(r.bySPI, spi)
	}
	delete(r.byInit, s.key)
	if s.index >= 0 {
		heap.Remove(&r.wakes, s.index)
	}
	s.state, s.expire = stateClosed, time.Time{}
}

// Advance does what is due at now, in all sessions.
func (r *Responder) Advance(now time.Time) {
	for len(r.wakes) > 0 && !now.Before(r.wakes[0].wake) {
		s := r.wakes[0]
		if reached(now, s.expire) {
			// Half open for too long, or closed and remembered long enough.
			r.forget(s)
			continue
		}
		s.Advance(now)
	}
}

// NextTimeout is when Advance wants to be called; zero if there is no need.
func (r *Responder) NextTimeout() time.Time {
	if len(r.wakes) == 0 {
		return time.Time{}
	}
	return r.wakes[0].wake
}

// Events gives what happened since the last call, in order.
func (r *Responder) Events() []SessionEvent {
	e := r.events
	r.events = nil
	return e
}

// Sessions gives the established sessions in no order.
func (r *Responder) Sessions() []*Session {
	var all []*Session
	for _, m := range r.byRemote {
		for s := range m {
			all = append(all, s)
		}
	}
	return all
}

// schedule puts a session where its next timeout belongs.
func (r *Responder) schedule(s *Session) {
	t := s.NextTimeout()
	switch {
	case t.IsZero():
		if s.index >= 0 {
			heap.Remove(&r.wakes, s.index)
		}
	case s.index < 0:
		s.wake = t
		heap.Push(&r.wakes, s)
	default:
		s.wake = t
		heap.Fix(&r.wakes, s.index)
	}
}

// wakeHeap orders sessions by their next timeout.
type wakeHeap []*Session

func (h wakeHeap) Len() int           { return len(h) }
func (h wakeHeap) Less(i, j int) bool { return h[i].wake.Before(h[j].wake) }
func (h wakeHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}
func (h *wakeHeap) Push(x any) {
	s := x.(*Session)
	s.index = len(*h)
	*h = append(*h, s)
}
func (h *wakeHeap) Pop() any {
	old := *h
	s := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	s.index = -1
	return s
}
