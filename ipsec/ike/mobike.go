package ike

import (
	"bytes"
	"time"

	"github.com/godwit-net/godwit/ipsec/ike/message"
)

// cookie2Len is the length of our COOKIE2, which "MUST be between 8 and 64
// octets in length (inclusive)". RFC 4555, Section 4.2.5
const cookie2Len = 16

// MOBIKE reports that both ends have said that they know MOBIKE (RFC 4555).
func (s *Session) MOBIKE() bool { return s.mobike }

// mobikeOffer is what an initiator adds to IKE_AUTH. Which addresses it has
// besides is no business of the peer's: it says itself where it is.
func (s *Session) mobikeOffer() []message.Payload {
	if !s.c.MOBIKE {
		return nil
	}
	return []message.Payload{
		&message.Notify{NotifyType: message.MOBIKESupported},
		&message.Notify{NotifyType: message.NoAdditionalAddresses},
	}
}

// learnMOBIKE reads whether the peer knows MOBIKE, in IKE_AUTH.
func (s *Session) learnMOBIKE(ps []message.Payload) {
	s.mobike = s.c.MOBIKE && message.FindNotify(ps, message.MOBIKESupported) != nil
}

// UpdateAddresses tells the peer that this end is where the message comes from,
// and that all SAs are to follow (RFC 4555, Section 3.5). A request under way is
// sent again first, as it may have been lost on the old path: the window holds
// one. It does nothing without MOBIKE.
//
//	HDR, SK { N(UPDATE_SA_ADDRESSES), N(NAT_DETECTION_SOURCE_IP),
//	    N(NAT_DETECTION_DESTINATION_IP), N(COOKIE2) } -->
func (s *Session) UpdateAddresses(now time.Time) {
	if s.state != stateEstablished || !s.mobike {
		return
	}
	s.Retransmit(now)
	s.enqueueFirst(task{kind: reqUpdate})
	s.pump(now)
	s.schedule()
}

// Probe asks the peer for a sign of life that it cannot give without having
// received the question: return routability, RFC 4555, Section 3.7. Alive with
// Probed follows. Without MOBIKE it is Liveness.
//
//	HDR, SK { N(COOKIE2) } -->
func (s *Session) Probe(now time.Time) {
	if s.state != stateEstablished {
		return
	}
	if !s.mobike {
		s.Liveness(now)
		return
	}
	s.enqueue(task{kind: reqProbe})
	s.pump(now)
	s.schedule()
}

// enqueueFirst puts a task before all others, once.
func (s *Session) enqueueFirst(t task) {
	if len(s.queue) > 0 && s.queue[0] == t {
		return
	}
	s.queue = append([]task{t}, s.queue...)
}

func (s *Session) startUpdate(now time.Time) {
	r := &request{kind: reqUpdate, cookie2: s.rand.bytes(cookie2Len)}
	ps := append([]message.Payload{&message.Notify{NotifyType: message.UpdateSAAddresses}}, s.natDetection()...)
	s.send(now, s.sa, r, append(ps, &message.Notify{NotifyType: message.Cookie2, Data: r.cookie2}))
}

func (s *Session) startProbe(now time.Time) {
	r := &request{kind: reqProbe, cookie2: s.rand.bytes(cookie2Len)}
	s.send(now, s.sa, r, []message.Payload{&message.Notify{NotifyType: message.Cookie2, Data: r.cookie2}})
}

// probed reports that a response echoes the request's COOKIE2.
func (r *request) probed(ps []message.Payload) bool {
	n := message.FindNotify(ps, message.Cookie2)
	return r.cookie2 != nil && n != nil && bytes.Equal(n.Data, r.cookie2)
}

// updateResponse takes:
//
//	<-- HDR, SK { N(NAT_DETECTION_SOURCE_IP), N(NAT_DETECTION_DESTINATION_IP), N(COOKIE2) }
//
// "If the response contains an error [...] UNACCEPTABLE_ADDRESSES", the peer
// stays with the old address; our next move, or giving up, mends it.
func (s *Session) updateResponse(ps []message.Payload) {
	if n := message.FindError(ps); n != nil {
		s.debug("addresses not updated", &NotifyError{n.NotifyType})
	}
}

// answerMOBIKE gives what an INFORMATIONAL request about addresses is answered
// with, and whether the peer has moved to where it came from.
func (s *Session) answerMOBIKE(ps []message.Payload) (reply []message.Payload, moved bool) {
	if !s.mobike {
		return nil, false
	}
	for _, p := range ps {
		n, ok := p.(*message.Notify)
		if !ok {
			continue
		}
		switch n.NotifyType {
		case message.UpdateSAAddresses:
			moved = true
		case message.NATDetectionSourceIP:
			// "the responder MUST include NAT_DETECTION payloads in its
			// response". Section 3.8. False ones, as in IKE_SA_INIT.
			reply = append(reply, s.natDetection()...)
		case message.Cookie2:
			// "the notification MUST be copied to the response". Section 3.7
			if len(n.Data) >= 8 && len(n.Data) <= 64 {
				reply = append(reply, &message.Notify{NotifyType: message.Cookie2, Data: bytes.Clone(n.Data)})
			}
		}
	}
	return reply, moved
}
