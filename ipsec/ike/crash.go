package ike

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"time"

	"github.com/godwit-net/godwit/ipsec/ike/message"
)

const (
	// tokenLen is the length of our tokens, which is "between 16 and 128 octets".
	// RFC 6290, Section 4.1
	tokenLen = sha256.Size
	// tokenAnswerLen is the length of the answer that holds one: the header, and
	// the two notifications. Requests are padded to it, so that the answer to one
	// is no larger.
	tokenAnswerLen = message.HeaderLen + 8 + 8 + tokenLen
	// hintInterval is how often the word of anybody, that an SPI is not known,
	// makes us ask.
	hintInterval = 2 * time.Second
	// answersASecond bounds what is said to nobody in particular, and answerBurst
	// what of it may be said at once: to the clients of a server that comes back.
	answersASecond = 500
	answerBurst    = 2000
)

// token is what tells the peer of an IKE SA that we lost it (RFC 6290, Section
// 5.1), and nobody but us can make it:
//
//	TOKEN_SECRET_DATA = HMAC(TOKEN_SECRET, SPI-I | SPI-R)
func (r *Responder) token(spiI, spiR uint64) []byte {
	m := hmac.New(sha256.New, r.c.TokenSecret)
	var spis [16]byte
	binary.BigEndian.PutUint64(spis[:], spiI)
	binary.BigEndian.PutUint64(spis[8:], spiR)
	m.Write(spis[:])
	return m.Sum(nil)
}

// tokenPayload gives the token of an IKE SA to its peer; nothing without a secret.
func (s *Session) tokenPayload(spiI, spiR uint64) []message.Payload {
	if s.resp == nil || s.resp.c.TokenSecret == nil {
		return nil
	}
	return []message.Payload{crashToken(s.resp.token(spiI, spiR))}
}

// crashToken is QUICK_CRASH_DETECTION, whose "Protocol ID [...] MUST be 1". RFC
// 6290, Section 4.1
func crashToken(token []byte) message.Payload {
	return &message.Notify{Protocol: message.ProtocolIKE, NotifyType: message.QuickCrashDetection, Data: token}
}

// findToken gives the token that the peer sent; nil for none of a right length.
func findToken(ps []message.Payload) []byte {
	n := message.FindNotify(ps, message.QuickCrashDetection)
	if n == nil || len(n.Data) < 16 || len(n.Data) > 128 {
		return nil
	}
	return bytes.Clone(n.Data)
}

// lost answers a request of an IKE SA that we do not have, "outside of an SA", by
// a message whose SPIs, message ID and exchange type "are copied from the
// request" (RFC 7296, Section 1.5), with the token that proves that it is us who
// lost it (RFC 6290, Section 4.5). It is never larger than the request, and never
// given for an SPI of an IKE SA that is there: whoever knows the SPIs of somebody
// else's could end it.
func (r *Responder) lost(now time.Time, h *message.Header, size int, path Path) {
	if r.c.TokenSecret == nil || h.Response() || h.NextPayload != message.TypeEncrypted && h.NextPayload != message.TypeFragment ||
		h.ResponderSPI == 0 || r.bySPI[h.InitiatorSPI] != nil || r.bySPI[h.ResponderSPI] != nil || !r.answers.take(now) {
		return
	}
	m := message.Message{Header: *h}
	m.Version, m.Flags = message.Version2, message.FlagResponse
	if !h.FromInitiator() {
		m.Flags |= message.FlagInitiator
	}
	m.Payloads = []message.Payload{&message.Notify{NotifyType: message.InvalidIKESPI}}
	if size >= tokenAnswerLen {
		m.Payloads = append(m.Payloads, crashToken(r.token(h.InitiatorSPI, h.ResponderSPI)))
	}
	if b, err := m.AppendBinary(nil); err == nil && len(b) <= size {
		r.events = append(r.events, SessionEvent{nil, Send{Message: b, Path: path}})
	}
}

// UnknownSPI tells who sent an ESP packet of size bytes with an SPI that nobody
// has, so that it asks whether its IKE SA is still there. A Send follows, unless
// there have been too many of them, or it would be larger than the packet.
//
// "The Initiator flag is set to 1, the Response flag is set to 0", and random SPIs
// are as good as any. RFC 7296, Section 1.5
func (r *Responder) UnknownSPI(now time.Time, spi uint32, size int, path Path) {
	if r.c.TokenSecret == nil || spi == 0 || !r.answers.take(now) {
		return
	}
	m := message.Message{
		Header: message.Header{
			InitiatorSPI: r.rand.uint64(), Version: message.Version2,
			Exchange: message.Informational, Flags: message.FlagInitiator,
		},
		Payloads: []message.Payload{&message.Notify{NotifyType: message.InvalidSPI, Data: spiBytes(spi)}},
	}
	if b, err := m.AppendBinary(nil); err == nil && len(b) <= size {
		r.events = append(r.events, SessionEvent{nil, Send{Message: b, Path: path}})
	}
}

// crashed ends the session when the peer proves that it has lost the IKE SA.
func (s *Session) crashed(now time.Time, sa *ikeSA, h *message.Header, msg []byte) bool {
	if h.NextPayload != message.TypeNotify || s.state != stateEstablished || sa != s.sa || sa.token == nil {
		return false
	}
	m, err := message.Parse(msg)
	if err != nil || message.FindNotify(m.Payloads, message.InvalidIKESPI) == nil {
		return false
	}
	shown := findToken(m.Payloads)
	if shown == nil || subtle.ConstantTimeCompare(shown, sa.token) != 1 {
		s.debug("false token", nil)
		return false
	}
	s.close(now, ErrLost)
	return true
}

// hint takes INVALID_SPI from anybody: "it MUST NOT [...] delete" anything for it,
// "but MAY take it as a hint" to ask the peer (RFC 7296, Sections 1.5 and 2.4).
// A request under way is sent again, as that asks as well.
func (s *Session) hint(now time.Time, h *message.Header, msg []byte) {
	if s.state != stateEstablished || h.Exchange != message.Informational || h.Response() || h.ResponderSPI != 0 ||
		h.NextPayload != message.TypeNotify || now.Before(s.hintAt) {
		return
	}
	m, err := message.Parse(msg)
	if err != nil {
		return
	}
	n := message.FindNotify(m.Payloads, message.InvalidSPI)
	if n == nil || len(n.Data) != 4 || s.childByOutbound(binary.BigEndian.Uint32(n.Data)) == nil {
		return
	}
	s.hintAt = now.Add(hintInterval)
	if r := s.sa.request; r != nil {
		s.resend(now, r)
		return
	}
	s.enqueue(task{kind: reqLiveness})
	s.pump(now)
}

// A bucket limits a rate: it holds answerBurst, and answersASecond come in.
type bucket struct {
	used  float64
	since time.Time
}

func (b *bucket) take(now time.Time) bool {
	if passed := now.Sub(b.since); passed > 0 {
		b.used = max(0, b.used-passed.Seconds()*answersASecond)
		b.since = now
	}
	if b.used+1 > answerBurst {
		return false
	}
	b.used++
	return true
}
