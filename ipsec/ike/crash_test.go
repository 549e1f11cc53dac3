package ike

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/godwit-net/godwit/ipsec/ike/message"
)

// restart has the responder lose everything but what its owner keeps on disk.
func (p *pair) restart() {
	p.t.Helper()
	var err error
	if p.r, err = NewResponder(p.rc); err != nil {
		p.t.Fatal(err)
	}
	p.toI, p.toR = nil, nil
}

// unknown is what the responder says to an ESP packet of the initiator's.
func (p *pair) unknown(spi uint32, size int) {
	p.r.UnknownSPI(p.now, spi, size, p.paths[0])
	p.collect()
}

// A responder that was started anew answers ESP by INVALID_SPI, which makes the
// initiator ask, and the question by a token, which ends the session.
func TestCrash(t *testing.T) {
	for kind, change := range kinds {
		for _, when := range []string{"at once", "after rekeying", "after rekeying by the responder"} {
			t.Run(kind+" "+when, func(t *testing.T) {
				p := newPair(t, change)
				p.establish()
				switch when {
				case "after rekeying":
					p.i.RekeyIKE(p.now)
				case "after rekeying by the responder":
					p.session().RekeyIKE(p.now)
				}
				p.run()
				p.wantIdle()
				child := p.wantOneChild()
				p.restart()
				n := len(p.sends)
				p.unknown(child.OutboundSPI, 100)
				p.run()
				// <-- HDR(random, 0), N(INVALID_SPI)
				// HDR, SK {} -->
				// <-- HDR, N(INVALID_IKE_SPI), N(QUICK_CRASH_DETECTION)
				if got := strings.Join(p.sends[n:], ", "); !strings.HasPrefix(got, "R INFORMATIONAL request 0, I INFORMATIONAL request ") ||
					strings.Count(got, ",") != 2 || !strings.Contains(got, ", R INFORMATIONAL response ") {
					t.Fatalf("sent %q", got)
				}
				if question, answer := p.raw[n+1], p.raw[n+2]; len(answer) > len(question) || len(answer) != tokenAnswerLen {
					t.Fatalf("%d bytes answer %d", len(answer), len(question))
				}
				if err := p.closedI(); !errors.Is(err, ErrLost) {
					t.Fatalf("closed with %v", err)
				}
				p.connect()
				p.eventsI, p.eventsR = nil, nil
				p.establish()
			})
		}
	}
}

// A request under way is the question.
func TestCrashDuringRequest(t *testing.T) {
	p := newPair(t)
	p.establish()
	child := p.wantOneChild()
	p.restart()
	p.i.RekeyChild(p.now)
	p.collect()
	p.toR = nil // lost
	p.unknown(child.OutboundSPI, 100)
	p.run()
	if err := p.closedI(); !errors.Is(err, ErrLost) {
		t.Fatalf("closed with %v", err)
	}
}

// Whoever has no secret ends nothing: neither who forges tokens, nor who has
// the responder make them.
func TestForgedCrash(t *testing.T) {
	p := newPair(t)
	p.establish()
	spiI, spiR := p.i.SPIs()
	token := p.r.token(spiI, spiR)
	answer := func(id uint32, ps ...message.Payload) []byte {
		m := message.Message{Header: message.Header{
			InitiatorSPI: spiI, ResponderSPI: spiR, Version: message.Version2,
			Exchange: message.Informational, Flags: message.FlagResponse, ID: id,
		}, Payloads: ps}
		b, err := m.AppendBinary(nil)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	invalid := &message.Notify{NotifyType: message.InvalidIKESPI}
	wrong := bytes.Clone(token)
	wrong[31] ^= 1
	p.i.Liveness(p.now)
	p.collect()
	id := p.i.sa.request.id
	for _, m := range [][]byte{
		answer(id, invalid),
		answer(id, invalid, crashToken(wrong)),
		answer(id, invalid, crashToken(token[:31])),
		answer(id, invalid, crashToken(nil)),
		answer(id, crashToken(token)),
	} {
		p.i.Receive(p.now, m, nil)
	}
	p.run()
	p.wantOneChild()
	p.wantIdle()

	// Nobody gets the token of an IKE SA that is there, whatever flags and SPIs
	// the question has.
	p.i.Liveness(p.now)
	p.collect()
	question := p.toR[0].msg
	p.toR = nil
	for flags := range 256 {
		for _, zero := range []int{-1, 0, 8} {
			b := bytes.Clone(question)
			b[19] = byte(flags)
			if zero >= 0 {
				binary.BigEndian.PutUint64(b[zero:], 99)
			}
			p.r.Receive(p.now, b, "off path", source)
			for _, e := range p.r.Events() {
				if s, ok := e.Event.(Send); ok && bytes.Contains(s.Message, token) {
					t.Fatalf("the token for flags %02x", flags)
				}
			}
		}
	}
	// It does give one to who asks for that IKE SA when it is gone, and then the
	// initiator is right to believe it.
	p.restart()
	p.r.Receive(p.now, question, "off path", source)
	if es := p.r.Events(); len(es) != 1 || !bytes.Contains(es[0].Event.(Send).Message, token) {
		t.Fatalf("events %v", es)
	}
}

// INVALID_SPI from anybody makes for a question now and then.
func TestForgedInvalidSPI(t *testing.T) {
	p := newPair(t)
	p.establish()
	child := p.wantOneChild()
	p.unknown(child.InboundSPI, 100) // one that we do not send by
	p.unknown(12345, 100)
	n := len(p.sends)
	p.run()
	if len(p.sends) != n {
		t.Fatalf("sent %q", p.sends[n:])
	}
	asked := 0
	for range 100 {
		p.unknown(child.OutboundSPI, 100)
		n := len(p.sends)
		p.run()
		asked += len(p.sends) - n
		p.pass(100 * time.Millisecond)
	}
	// In ten seconds, questions and answers.
	if asked < 8 || asked > 12 {
		t.Fatalf("%d messages", asked)
	}
	p.wantOneChild()
	p.wantIdle()
}

// Nothing is answered by more than it has, and there is an end to answers.
func TestCrashAnswersAreBounded(t *testing.T) {
	p := newPair(t)
	p.establish()
	p.i.Liveness(p.now)
	p.collect()
	question := p.toR[0].msg
	p.restart()
	sent := func() (n, longest int) {
		for _, e := range p.r.Events() {
			if s, ok := e.Event.(Send); ok {
				n++
				longest = max(longest, len(s.Message))
			}
		}
		return n, longest
	}
	for size := range 200 {
		b := append(bytes.Clone(question), make([]byte, 200)...)[:size]
		if size >= message.HeaderLen {
			binary.BigEndian.PutUint32(b[24:], uint32(size))
		}
		p.r.Receive(p.now, b, "path", source)
		if n, longest := sent(); n > 1 || longest > size {
			t.Fatalf("%d messages of up to %d bytes for %d", n, longest, size)
		}
		p.r.UnknownSPI(p.now, 1000, size, "path")
		if n, longest := sent(); n > 1 || longest > size {
			t.Fatalf("%d messages of up to %d bytes for %d of ESP", n, longest, size)
		}
	}
	for range 2 * answerBurst {
		p.r.Receive(p.now, question, "path", source)
		p.r.UnknownSPI(p.now, 1000, 100, "path")
	}
	if n, _ := sent(); n > answerBurst {
		t.Fatalf("%d answers at once", n)
	}
	p.now = p.now.Add(time.Second)
	for range 2 * answerBurst {
		p.r.Receive(p.now, question, "path", source)
	}
	if n, _ := sent(); n < answersASecond-1 || n > answersASecond {
		t.Fatalf("%d answers in a second", n)
	}
	// One that gives no tokens is silent.
	p.rc.TokenSecret = nil
	p.restart()
	p.r.Receive(p.now, question, "path", source)
	p.r.UnknownSPI(p.now, 1000, 100, "path")
	if n, _ := sent(); n > 0 {
		t.Fatal("answered without a secret")
	}
}
