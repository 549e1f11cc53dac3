package ike

import (
	"time"

	"github.com/godwit-net/godwit/ipsec/ike/message"
)

// startDeleteChild sends:
//
//	HDR, SK {D} -->
func (s *Session) startDeleteChild(now time.Time, c *child) {
	if !s.has(c) || c.deleting {
		return
	}
	c.deleting, c.rekeyAt, c.deleteAt = true, time.Time{}, time.Time{}
	s.send(now, s.sa, &request{kind: reqDeleteChild, child: c}, []message.Payload{
		&message.Delete{Protocol: message.ProtocolESP, SPIs: []uint32{c.InboundSPI}},
	})
}

// startDeleteIKE deletes an IKE SA: the current one, which ends the session, or
// one that is replaced.
func (s *Session) startDeleteIKE(now time.Time, sa *ikeSA) {
	s.send(now, sa, &request{kind: reqDeleteIKE}, []message.Payload{
		&message.Delete{Protocol: message.ProtocolIKE},
	})
}

// handleInformational answers an INFORMATIONAL request; an empty one is a
// liveness check (RFC 7296, Section 1.4).
func (s *Session) handleInformational(now time.Time, sa *ikeSA, ps []message.Payload) (reply []message.Payload, after func()) {
	var gone []uint32
	reply, moved := s.answerMOBIKE(ps)
	if moved {
		after = func() { s.emit(Moved{}) }
	}
	for _, p := range ps {
		switch p := p.(type) {
		case *message.Delete:
			switch p.Protocol {
			case message.ProtocolIKE:
				// "an empty Informational response". Section 1.4.1
				return nil, s.peerDeletes(now, sa)
			case message.ProtocolESP:
				gone = append(gone, s.deleteChildren(p.SPIs)...)
			}
		case *message.Notify:
			if p.NotifyType == message.QuickCrashDetection {
				sa.token = findToken([]message.Payload{p})
			}
			if p.NotifyType == message.AuthenticationFailed || p.NotifyType == message.InvalidSyntax {
				// The initiator did not like our IKE_AUTH response. Section 2.21.2
				e := &NotifyError{p.NotifyType}
				return nil, func() { s.close(now, e) }
			}
		}
	}
	if len(gone) > 0 {
		reply = append(reply, &message.Delete{Protocol: message.ProtocolESP, SPIs: gone})
	}
	return reply, after
}

// deleteChildren removes the children that the peer receives by spis and gives
// the other halves to delete: "the Delete payloads for the paired SAs going in
// the other direction". Those that we are deleting at the same time are left
// out, for the peer has heard of them already (RFC 7296, Section 1.4.1).
func (s *Session) deleteChildren(spis []uint32) (gone []uint32) {
	for _, spi := range spis {
		c := s.childByOutbound(spi)
		if c == nil {
			continue
		}
		if !c.deleting {
			gone = append(gone, c.InboundSPI)
		}
		s.removeChild(c)
	}
	return gone
}

// peerDeletes takes the deletion of an IKE SA. A session lives on if another
// of its IKE SAs takes over.
func (s *Session) peerDeletes(now time.Time, sa *ikeSA) (after func()) {
	if sa == s.sa {
		if sa.peerRekey == nil || sa.peerRekey.sa.state != saLive {
			return func() { s.close(now, nil) }
		}
		// The peer finished its rekeying and never saw ours: "forget about its
		// own rekeying". Section 2.25.2
		s.adopt(now, sa.peerRekey.sa)
	}
	return func() { s.gone(now, sa) }
}
