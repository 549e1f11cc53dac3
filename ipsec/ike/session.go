package ike

import (
	"context"
	"crypto/sha256"
	"log/slog"
	"net/netip"
	"slices"
	"time"

	"github.com/godwit-net/godwit/ipsec/ike/message"
)

// state is how far a Session is.
type state uint8

const (
	stateInit        state = iota + 1 // IKE_SA_INIT under way, or at a responder done
	stateAuth                         // IKE_INTERMEDIATE or IKE_AUTH under way, at an initiator
	stateEstablished                  // both ends are authenticated
	stateClosed
)

func (s state) String() string {
	return [...]string{"", "init", "auth", "established", "closed"}[s]
}

// A Session is an association with one peer: an IKE SA, those that replace it
// by rekeying, and their Child SAs. One goroutine owns it.
type Session struct {
	c     Config
	rand  entropy
	role  Role
	ini   *InitiatorConfig // at an initiator
	resp  *Responder       // at a responder
	state state

	sa    *ikeSA   // the one that new requests use
	sas   []*ikeSA // all of them
	first *firstExchange
	login *loginState // while IKE_AUTH goes by EAP

	mobike        bool // both ends know MOBIKE
	childless     bool // the responder knows RFC 6023
	peer          *Peer
	remote        Identity
	configuration Configuration
	allowLocal    []TrafficSelector
	allowRemote   []TrafficSelector

	children []*child // in order of creation
	queue    []task
	rekeyAt  time.Time // of the IKE SA
	hintAt   time.Time // before then, hints of anybody are not heeded
	expire   time.Time // half open until then, or when closed remembered until then

	events []Event

	// At a responder.
	wake          time.Time // as the Responder has it in its heap
	index         int       // in that heap; -1 outside
	claimed       []uint64  // SPIs that lead to this session, see claim
	key           initKey
	cookie        bool              // IKE_SA_INIT came with a good cookie
	authenticated bool              // was established once
	loggingIn     bool              // counts among the responder's logins,
	loginFrom     netip.Prefix      // from here
	initHash      [sha256.Size]byte // of the request
	initAnswer    []byte
}

// firstExchange is what IKE_SA_INIT leaves for IKE_AUTH.
type firstExchange struct {
	request, response []byte // RealMessage1 and 2
	ni, nr            []byte
	vendorIDs         [][]byte
	ed25519           bool     // the peer verifies Ed25519 signatures
	hashes            []uint16 // that the peer verifies signatures with
	ke                *keyExchange

	// IKE_INTERMEDIATE, one exchange for each additional key exchange.
	choice       choice
	left         []Group // those that are to come
	authI, authR []byte  // what AUTH covers of it, by each end: IntAuth_iN and rN
	authID       uint32  // the message ID of IKE_AUTH

	// At an initiator.
	group    Group
	cookie   []byte
	restarts int
	giveUp   time.Time
	refused  *NotifyError // an error that nobody has authenticated
}

// A task is a request that waits for the window.
type task struct {
	kind    requestKind
	child   *child
	group   Group // to use in a key exchange; 0 for our first
	retried bool  // after INVALID_KE_PAYLOAD
	standIn bool  // a new child in place of one that the peer lost
}

// Events gives what happened since the last call, in order. The events of a
// Responder's sessions come from Responder.Events instead.
func (s *Session) Events() []Event {
	e := s.events
	s.events = nil
	return e
}

func (s *Session) emit(e Event) {
	if s.resp != nil {
		s.resp.events = append(s.resp.events, SessionEvent{s, e})
		return
	}
	s.events = append(s.events, e)
}

// Receive takes a message from the network, which may be anything. It keeps
// nothing of msg. A response to it goes to path.
func (s *Session) Receive(now time.Time, msg []byte, path Path) {
	s.receive(now, msg, path)
	s.schedule()
}

func (s *Session) receive(now time.Time, msg []byte, path Path) {
	h, err := message.ParseHeader(msg)
	if err != nil {
		s.debug("message dropped", err)
		return
	}
	for _, sa := range s.sas {
		if sa.is(&h) {
			if h.Response() {
				if s.crashed(now, sa, &h, msg) {
					return
				}
				s.receiveResponse(now, sa, &h, msg)
			} else {
				s.receiveRequest(now, sa, &h, msg, path)
			}
			return
		}
	}
	s.hint(now, &h, msg)
}

// Advance does what is due at now.
func (s *Session) Advance(now time.Time) {
	s.advance(now)
	s.schedule()
}

func (s *Session) advance(now time.Time) {
	for _, sa := range slices.Clone(s.sas) {
		if r := sa.request; r != nil && reached(now, r.next) {
			s.retransmit(now, sa, r)
		}
		if reached(now, sa.expire) {
			if sa.state == saGone {
				s.dropSA(sa)
			} else if sa.state == saReplaced {
				s.gone(now, sa)
			}
		}
	}
	if s.state != stateEstablished {
		return
	}
	if reached(now, s.rekeyAt) {
		s.rekeyAt = time.Time{}
		s.enqueue(task{kind: reqIKE})
	}
	for _, c := range s.children {
		if reached(now, c.rekeyAt) {
			c.rekeyAt = time.Time{}
			s.enqueue(task{kind: reqChild, child: c})
		}
		if reached(now, c.deleteAt) {
			c.deleteAt = time.Time{}
			s.enqueue(task{kind: reqDeleteChild, child: c})
		}
	}
	s.pump(now)
}

// NextTimeout is when Advance wants to be called; zero if there is no need.
func (s *Session) NextTimeout() time.Time {
	if s.state == stateClosed {
		return s.expire
	}
	t := earlier(s.rekeyAt, s.expire)
	for _, sa := range s.sas {
		t = earlier(t, sa.due())
	}
	if p := s.sa.peerRekey; p.pending() && s.sa.request == nil && len(s.queue) > 0 {
		t = earlier(t, p.until)
	}
	for _, c := range s.children {
		t = earlier(t, earlier(c.rekeyAt, c.deleteAt))
	}
	return t
}

// RekeyChild replaces the newest Child SA.
func (s *Session) RekeyChild(now time.Time) {
	for _, c := range slices.Backward(s.children) {
		if c.live() {
			s.enqueue(task{kind: reqChild, child: c})
			break
		}
	}
	s.pump(now)
	s.schedule()
}

// RekeyIKE replaces the IKE SA; SPIs changes when it is done.
func (s *Session) RekeyIKE(now time.Time) {
	if s.state == stateEstablished {
		s.enqueue(task{kind: reqIKE})
		s.pump(now)
		s.schedule()
	}
}

// Liveness asks the peer for a sign of life; Alive or Closed follows. A request
// that is already under way counts as the question. Before Established it does
// nothing.
func (s *Session) Liveness(now time.Time) {
	if s.state == stateEstablished && s.sa.request == nil {
		s.enqueue(task{kind: reqLiveness})
		s.pump(now)
		s.schedule()
	}
}

// Retransmit sends the request under way again at once and starts its intervals
// anew, as after a move. It does not put off giving up.
func (s *Session) Retransmit(now time.Time) {
	for _, sa := range s.sas {
		if r := sa.request; r != nil {
			r.interval = s.c.RetransmitAfter
			s.resend(now, r)
		}
	}
	s.schedule()
}

// Delete ends the IKE SA and its children; Closed follows, when the peer has
// answered or did not answer for Config.RetransmitFor. Before Established it
// follows at once and the peer is not told.
func (s *Session) Delete(now time.Time) {
	switch s.state {
	case stateClosed:
	case stateEstablished:
		s.queue = []task{{kind: reqDeleteIKE}}
		s.pump(now)
	default:
		s.close(now, nil)
	}
	s.schedule()
}

// SPIs gives the SPIs of the current IKE SA; responder is 0 before there is one.
func (s *Session) SPIs() (initiator, responder uint64) { return s.sa.spiI, s.sa.spiR }

// KeyExchanges gives what the keys of the current IKE SA came from; nil before
// there are any.
func (s *Session) KeyExchanges() Groups { return slices.Clone(s.sa.groups) }

// Role is this end's role in the first exchange; rekeying does not change it.
func (s *Session) Role() Role { return s.role }

// Peer is what Lookup gave, at a responder once the peer is authenticated; else nil.
func (s *Session) Peer() *Peer { return s.peer }

// enqueue keeps one task of a kind and child.
func (s *Session) enqueue(t task) {
	if s.state != stateEstablished {
		return
	}
	if !slices.ContainsFunc(s.queue, func(q task) bool {
		return q.kind == t.kind && q.child == t.child && q.standIn == t.standIn
	}) {
		s.queue = append(s.queue, t)
	}
}

// held reports that a task waits until the peer has finished, or has had the
// time to finish, a rekeying of the IKE SA: a request about Child SAs would be
// refused, or its answer lost with the old IKE SA.
func (s *Session) held(now time.Time, t task) bool {
	switch t.kind {
	case reqChild, reqDeleteChild, reqIKE:
		return s.sa.contender(now).pending()
	}
	return false
}

// pump starts the next task when the window, which holds one request, is free.
func (s *Session) pump(now time.Time) {
	for s.state == stateEstablished && s.sa.request == nil {
		i := slices.IndexFunc(s.queue, func(t task) bool { return !s.held(now, t) })
		if i < 0 {
			return
		}
		t := s.queue[i]
		s.queue = slices.Delete(s.queue, i, i+1)
		switch t.kind {
		case reqChild:
			s.startChild(now, t)
		case reqIKE:
			s.startIKE(now, t)
		case reqLiveness:
			s.send(now, s.sa, &request{kind: reqLiveness}, nil)
		case reqDeleteChild:
			s.startDeleteChild(now, t.child)
		case reqDeleteIKE:
			s.startDeleteIKE(now, s.sa)
		case reqUpdate:
			s.startUpdate(now)
		case reqProbe:
			s.startProbe(now)
		case reqToken:
			s.send(now, s.sa, &request{kind: reqToken}, s.tokenPayload(s.sa.spiI, s.sa.spiR))
		}
	}
}

// established opens the session for everything that needs an authenticated peer.
func (s *Session) established(now time.Time) {
	s.state = stateEstablished
	s.expire = time.Time{}
	s.rekeyAt = s.soft(now, s.c.IKELifetime)
}

// close ends the session; what it was goes on answering retransmissions.
func (s *Session) close(now time.Time, err error) {
	if s.state == stateClosed {
		return
	}
	s.debug("closed", err)
	for _, c := range s.children {
		s.childGone(c)
	}
	s.children, s.queue, s.login = nil, nil, nil
	s.state = stateClosed
	s.rekeyAt = time.Time{}
	for _, sa := range s.sas {
		sa.request = nil
		sa.state = saGone
	}
	if s.resp != nil {
		s.expire = now.Add(linger)
		s.resp.sessionClosed(s)
	} else {
		s.expire = time.Time{}
	}
	s.emit(Closed{err})
}

// soft gives the time to rekey something that starts now: about lifetime later.
// The two ends differ, or each rekeying would be a collision (RFC 7296, Section
// 2.8: "the lifetimes SHOULD be jittered"): initiators come up to a tenth
// earlier, responders later.
func (s *Session) soft(now time.Time, lifetime time.Duration) time.Time {
	if lifetime < 0 {
		return time.Time{}
	}
	b := s.rand.bytes(2)
	jitter := lifetime / 10 * time.Duration(int(b[0])<<8|int(b[1])) / 0xffff
	if s.role == RoleInitiator {
		jitter = -jitter
	}
	return now.Add(lifetime + jitter)
}

// retry gives the time of the next attempt, with jitter for the same reason.
func (s *Session) retry(now time.Time, after time.Duration) time.Time {
	return now.Add(after + after*time.Duration(s.rand.bytes(1)[0])/255)
}

// schedule tells the Responder that NextTimeout may have changed.
func (s *Session) schedule() {
	if s.resp != nil {
		s.resp.schedule(s)
	}
}

func (s *Session) addSA(sa *ikeSA) {
	s.sas = append(s.sas, sa)
	if s.resp != nil {
		s.resp.bySPI[sa.localSPI()] = s
	}
}

func (s *Session) dropSA(sa *ikeSA) {
	s.sas = slices.DeleteFunc(s.sas, func(o *ikeSA) bool { return o == sa })
	// A peer that has not heard of its successor shall not be told that the
	// session is lost.
	s.claim(sa.localSPI())
}

// claim keeps an SPI for this session at a responder, though there is no IKE SA
// by it, any more or yet.
func (s *Session) claim(spi uint64) {
	if s.resp == nil {
		return
	}
	s.resp.bySPI[spi] = s
	s.claimed = append(slices.DeleteFunc(s.claimed, func(c uint64) bool { return c == spi }), spi)
	if len(s.claimed) > maxIKESAs {
		oldest := s.claimed[0]
		s.claimed = slices.Delete(s.claimed, 0, 1)
		if !slices.ContainsFunc(s.sas, func(sa *ikeSA) bool { return sa.localSPI() == oldest }) {
			delete(s.resp.bySPI, oldest)
		}
	}
}

// newSPI gives an SPI for an IKE SA that no other of ours has.
func (s *Session) newSPI() uint64 {
	for {
		spi := s.rand.uint64()
		if s.resp != nil && s.resp.bySPI[spi] != nil ||
			slices.ContainsFunc(s.sas, func(sa *ikeSA) bool { return sa.localSPI() == spi }) {
			continue
		}
		return spi
	}
}

// gone ends an SA that is not the current one any more.
func (s *Session) gone(now time.Time, sa *ikeSA) {
	sa.state, sa.request, sa.expire = saGone, nil, now.Add(linger)
}

func (s *Session) debug(msg string, err error) {
	if !s.c.Logger.Enabled(context.Background(), slog.LevelDebug) {
		return
	}
	as := []slog.Attr{slog.String("state", s.state.String())}
	if s.sa != nil {
		as = append(as, slog.Uint64("spi", s.sa.localSPI()))
	}
	if err != nil {
		as = append(as, slog.Any("err", err))
	}
	s.c.Logger.LogAttrs(context.Background(), slog.LevelDebug, msg, as...)
}
