package ike

import (
	"crypto/sha256"
	"errors"
	"time"

	"github.com/godwit-net/godwit/ipsec/ike/message"
)

// send starts a request on sa with the next message ID.
func (s *Session) send(now time.Time, sa *ikeSA, r *request, ps []message.Payload) {
	r.id = sa.nextSend
	var err error
	if r.msgs, err = sa.seal(r.exchange(), r.id, false, ps); err != nil {
		// Nothing that a peer or a checked configuration says comes near the
		// limits; a caller's attributes might.
		s.close(now, err)
		return
	}
	s.launch(now, sa, r)
}

// launch sends a request whose message is made.
func (s *Session) launch(now time.Time, sa *ikeSA, r *request) {
	sa.nextSend = r.id + 1
	sa.request = r
	r.first, r.tries, r.interval = now, 1, s.c.RetransmitAfter
	if s.c.RetransmitFor > 0 && r.giveUp.IsZero() {
		r.giveUp = now.Add(s.c.RetransmitFor)
	}
	r.next = earlier(now.Add(r.interval), r.giveUp)
	s.debug("request "+r.exchange().String(), nil)
	s.sendAll(r.msgs, nil, false)
}

// retransmit sends a request again or gives up.
func (s *Session) retransmit(now time.Time, sa *ikeSA, r *request) {
	if r.kind == reqInit && s.first.refused != nil && r.tries >= initPatience {
		s.close(now, s.first.refused)
		return
	}
	if reached(now, r.giveUp) {
		if sa == s.sa {
			s.close(now, ErrTimeout)
		} else {
			// Only the deletion of an SA that is replaced; the new one will
			// show whether the peer is there.
			s.gone(now, sa)
		}
		return
	}
	r.interval = min(2*r.interval, max(maxRetransmit, s.c.RetransmitAfter))
	s.resend(now, r)
}

// resend sends the same bytes: "A retransmission from the initiator MUST be
// bitwise identical to the original request." RFC 7296, Section 2.1
func (s *Session) resend(now time.Time, r *request) {
	r.tries++
	r.next = earlier(now.Add(r.interval), r.giveUp)
	s.sendAll(r.msgs, nil, true)
}

// sendAll sends a message, which may be several fragments.
func (s *Session) sendAll(msgs [][]byte, path Path, again bool) {
	for i, m := range msgs {
		s.emit(Send{Message: m, Path: path, Fragment: i, Retransmission: again})
	}
}

// receiveRequest answers a request. The window has size 1: the next message ID
// is handled, the last one answered again if it is the same request, and
// others are ignored (RFC 7296, Section 2.3).
func (s *Session) receiveRequest(now time.Time, sa *ikeSA, h *message.Header, msg []byte, path Path) {
	if sa.lastResponse != nil && h.ID == sa.nextRecv-1 {
		// "the responder [...] MUST retransmit the response" to "a
		// retransmission of the request". Section 2.1. Of a fragmented request the
		// first fragment alone stands for it (RFC 7383, Section 2.6.1).
		if sha256.Sum256(msg) == sa.lastRequest {
			s.sendAll(sa.lastResponse, path, true)
		}
		return
	}
	if h.ID != sa.nextRecv || sa.state == saGone || sa.in == nil {
		return
	}
	if s.state != stateEstablished && (s.state != stateInit || s.role != RoleResponder ||
		h.Exchange != message.IKEAuth && h.Exchange != message.IKEIntermediate && (s.login == nil || h.Exchange != message.Informational)) {
		return
	}
	in, err := sa.open(&sa.requests, h.ID, msg)
	if err == nil && in == nil {
		return // more fragments are to come
	}
	var reply []message.Payload
	var after func()
	var critical *message.CriticalError
	switch {
	case errors.As(err, &critical):
		e := &RefusalError{Type: message.UnsupportedCriticalPayload, Err: err, data: []byte{byte(critical.Type)}}
		reply = []message.Payload{e.payload()}
	case errors.Is(err, message.ErrSyntax):
		reply, after = s.fatal(now, refuse(message.InvalidSyntax, "%w", err))
	case err != nil:
		s.debug("request dropped", err)
		return
	default:
		reply, after = s.handle(now, sa, h, in)
	}
	mark := sha256.Sum256(msg)
	if in != nil {
		mark = in.mark
	}
	s.respond(sa, h, mark, path, reply)
	if after != nil {
		after()
	}
	s.pump(now)
}

// respond sends a response and keeps it for retransmissions of its request.
func (s *Session) respond(sa *ikeSA, h *message.Header, mark [sha256.Size]byte, path Path, reply []message.Payload) {
	out, err := sa.seal(h.Exchange, h.ID, true, reply)
	if err != nil {
		s.debug("response failed", err)
		return
	}
	sa.nextRecv = h.ID + 1
	sa.lastRequest = mark
	sa.lastResponse = out
	s.debug("response "+h.Exchange.String(), nil)
	s.sendAll(out, path, false)
}

// fatal is the answer to a request after which the IKE SA cannot go on.
func (s *Session) fatal(now time.Time, e *RefusalError) ([]message.Payload, func()) {
	return []message.Payload{e.payload()}, func() { s.close(now, e) }
}

// handle gives the payloads of the response to a request, and what is to be
// done once it is sent.
func (s *Session) handle(now time.Time, sa *ikeSA, h *message.Header, in *opened) ([]message.Payload, func()) {
	e, ps := h.Exchange, in.payloads
	switch {
	case s.state == stateInit && len(s.first.left) > 0:
		// IKE_AUTH before that would leave out what was agreed.
		if e == message.IKEIntermediate {
			return s.handleIntermediate(now, sa, h, in)
		}
	case e == message.IKEAuth && s.state == stateInit:
		if s.first.authID == 0 {
			s.first.authID = h.ID // of the first of several
		}
		return s.handleAuth(now, sa, ps)
	case e == message.Informational && s.state == stateInit:
		return s.loginAbandoned(now, ps)
	case e == message.CreateChildSA && s.state == stateEstablished:
		return s.handleCreateChild(now, sa, ps)
	case e == message.IKEFollowupKE && s.state == stateEstablished:
		return s.handleFollowup(now, sa, ps)
	case e == message.Informational && s.state == stateEstablished:
		return s.handleInformational(now, sa, ps)
	}
	return s.fatal(now, refuse(message.InvalidSyntax, "%v out of place", e))
}

// receiveResponse takes the response to the request under way and ignores all
// others: late copies, and what was never asked.
func (s *Session) receiveResponse(now time.Time, sa *ikeSA, h *message.Header, msg []byte) {
	r := sa.request
	if r == nil || r.id != h.ID || r.exchange() != h.Exchange {
		return
	}
	if r.kind == reqInit {
		s.initResponse(now, sa, r, h, msg)
		return
	}
	in, err := sa.open(&sa.responses, h.ID, msg)
	if err == nil && in == nil {
		return
	}
	if err != nil && !errors.Is(err, message.ErrSyntax) && !errors.As(err, new(*message.CriticalError)) {
		s.debug("response dropped", err)
		return
	}
	if err != nil {
		// The peer itself made it, and a response cannot be refused.
		s.close(now, err)
		return
	}
	ps := in.payloads
	sa.request = nil
	var rtt time.Duration
	if r.tries == 1 {
		rtt = now.Sub(r.first)
	}
	if s.state == stateEstablished {
		s.emit(Alive{RoundTrip: rtt, Probed: r.probed(ps), Moved: r.kind == reqUpdate})
	}
	if s.ended(now, sa, r, ps) {
		return
	}
	switch r.kind {
	case reqAuth:
		s.authResponse(now, sa, r, ps, rtt)
	case reqIntermediate:
		s.intermediateResponse(now, sa, r, h, in)
	case reqChild:
		s.childResponse(now, sa, r, ps)
	case reqIKE:
		s.ikeResponse(now, sa, r, ps)
	case reqUpdate:
		s.updateResponse(ps)
	case reqDeleteChild:
		s.removeChild(r.child)
	case reqDeleteIKE:
		if sa == s.sa {
			s.close(now, nil)
		} else {
			s.gone(now, sa)
		}
	}
	s.pump(now)
}

// ended looks for the errors that end an established IKE SA whatever was asked
// (RFC 7296, Section 2.21.3).
func (s *Session) ended(now time.Time, sa *ikeSA, r *request, ps []message.Payload) bool {
	n := message.FindError(ps)
	if n == nil || r.kind == reqAuth {
		return false
	}
	switch n.NotifyType {
	case message.InvalidSyntax, message.AuthenticationFailed:
	default:
		return false
	}
	if sa != s.sa {
		s.gone(now, sa)
		return false
	}
	s.close(now, &NotifyError{n.NotifyType})
	return true
}
