package ike

import (
	"encoding/binary"
	"testing"
	"time"

	"github.com/godwit-net/godwit/ipsec/ike/message"
)

// sealAs makes a message that s would accept from its peer: payloads are any
// bytes, properly protected.
func sealAs(s, peer *Session, e message.ExchangeType, first message.PayloadType, response bool, plain []byte) []byte {
	sa := s.sa
	var mine *ikeSA
	for _, o := range peer.sas {
		if o.spiI == sa.spiI && o.spiR == sa.spiR && o.out != nil {
			mine = o
		}
	}
	if mine == nil || sa.spiR == 0 {
		return nil
	}
	id := sa.nextRecv
	if response {
		id = sa.nextSend - 1
	}
	h := mine.header(e, id, response)
	b := binary.BigEndian.AppendUint64(nil, h.InitiatorSPI)
	b = binary.BigEndian.AppendUint64(b, h.ResponderSPI)
	b = append(b, byte(message.TypeEncrypted), h.Version, byte(h.Exchange), h.Flags)
	b = binary.BigEndian.AppendUint32(b, id)
	n := 4 + 8 + len(plain) + 1 + 16
	b = binary.BigEndian.AppendUint32(b, uint32(message.HeaderLen+n))
	b = append(b, byte(first), 0, byte(n>>8), byte(n))
	return mine.out.Seal(b, append(plain[:len(plain):len(plain)], 0), b)
}

// FuzzSession plays a script against both ends: messages are lost, repeated,
// changed and made up, with and without the right keys, and clocks jump.
func FuzzSession(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{0, 0, 1, 1, 0, 1, 5, 6, 7, 0, 1, 0, 1})
	f.Add([]byte{0, 1, 0, 1, 2, 20, 0xff, 0, 3, 4, 200, 1, 9})
	// A rekeying by hand, from the seeds of a real one.
	p := newPair(f)
	p.establish()
	p.i.RekeyChild(p.now)
	p.session().RekeyIKE(p.now)
	p.collect()
	for _, k := range []packet{p.toR[0], p.toI[0]} {
		m, err := message.Parse(k.msg)
		if err != nil {
			f.Fatal(err)
		}
		e, _ := message.Find[*message.Encrypted](m.Payloads)
		o := p.session().sa.in
		if !m.FromInitiator() {
			o = p.i.sa.in
		}
		plain, err := o.Open(e.Body, k.msg[:e.Offset])
		if err != nil {
			f.Fatal(err)
		}
		s := []byte{0, 1, 0, 1, 8, byte(m.Exchange), byte(e.First), 0, byte(len(plain) >> 8), byte(len(plain))}
		f.Add(append(s, plain...))
		s[4] = 9
		f.Add(append(s, plain...))
	}
	// A login in which one message has been changed by hand.
	kit := edKit(f)
	for i := range 2 * (4 + 5) {
		step, of, password, mark := i/2, byte(8+i%2), "wrong", 2
		if step >= 4 {
			step, password, mark = step-4, "pass of carol", 3
		}
		p := newPair(f, kit.logins("carol", password))
		p.toResponder()
		p.toInitiator()
		s := []byte{0, 1}
		for range step {
			if p.toResponder(); len(p.toI) == 1 {
				s = append(s, 0, 1)
				p.toInitiator()
			}
		}
		from, k := p.i, p.toR[0]
		if of == 9 {
			p.toResponder()
			for _, from = range p.r.bySPI {
			}
			k = p.toI[0]
			s = append(s, 0)
		}
		m, err := message.Parse(k.msg)
		if err != nil {
			f.Fatal(err)
		}
		e, _ := message.Find[*message.Encrypted](m.Payloads)
		to := &opener{from.sa.out.aead, from.sa.out.salt}
		plain, err := to.Open(e.Body, k.msg[:e.Offset])
		if err != nil {
			f.Fatal(err)
		}
		s = append(s, of, byte(m.Exchange), byte(e.First), byte(of)-8, byte(len(plain)>>8), byte(len(plain)))
		s = append(s, plain...)
		for len(s)%4 != mark || len(s)%3 == 0 {
			s = append(s, 10)
		}
		f.Add(s)
	}
	// IKE_INTERMEDIATE goes right, then both ends rekey, with IKE_FOLLOWUP_KE.
	f.Add([]byte{0, 1, 0, 0, 0, 1, 1, 1, 0, 1, 5, 0, 0, 1, 1, 0, 0, 0, 1, 1, 1, 6, 0, 0, 1, 1, 0})
	// The responder crashes, and is asked.
	f.Add([]byte{0, 1, 0, 1, 13, 7, 12, 1, 200, 1, 0, 1, 0, 0})
	// Key exchange data of wrong lengths in both new exchanges.
	for _, e := range []message.ExchangeType{message.IKEIntermediate, message.IKEFollowupKE} {
		f.Add([]byte{0, 1, 8, byte(e), byte(message.TypeKE), 0, 0, 10, 0, 0, 0, 10, 0, 36, 0, 0, 1, 2, 9, byte(e), byte(message.TypeKE), 1, 0, 1, 0, 10, 10})
	}
	f.Fuzz(func(t *testing.T, script []byte) {
		if len(script) > 4096 {
			return
		}
		login, wrong := len(script)%4 >= 2, len(script)%4 == 2
		p := newPair(t, func(p *pair) {
			if len(script)%2 == 1 {
				p.ic.FragmentSize, p.rc.FragmentSize = minFragmentSize, minFragmentSize
			}
			if wrong {
				kit.logins("carol", "wrong")(p)
			} else if login {
				kit.logins("carol", "pass of carol")(p)
			}
			if len(script)%3 == 0 {
				hybrid(p)
			}
		})
		next := func() int {
			if len(script) == 0 {
				return 0
			}
			b := script[0]
			script = script[1:]
			return int(b)
		}
		take := func(n int) []byte {
			b := script[:min(n, len(script))]
			script = script[len(b):]
			return b
		}
		responder := func() *Session {
			for _, s := range p.r.bySPI {
				return s
			}
			return nil
		}
		for steps := 0; len(script) > 0 && steps < 200; steps++ {
			p.collect()
			switch op := next() % 14; op {
			case 0:
				if len(p.toR) > 0 {
					p.toResponder()
				}
			case 1:
				if len(p.toI) > 0 {
					p.toInitiator()
				}
			case 2: // change a byte
				at, v := next(), byte(next())
				for _, q := range [][]packet{p.toR, p.toI} {
					if len(q) > 0 {
						b := append([]byte(nil), q[0].msg...)
						b[at%len(b)] ^= v
						q[0].msg = b
					}
				}
			case 3: // lose
				if len(p.toR) > 0 {
					p.toR = p.toR[1:]
				}
				if len(p.toI) > 0 {
					p.toI = p.toI[1:]
				}
			case 4: // any bytes
				b := take(next())
				p.r.Receive(p.now, b, nil, source)
				p.i.Receive(p.now, b, nil)
			case 5:
				p.i.RekeyChild(p.now)
				if s := responder(); s != nil {
					s.RekeyIKE(p.now)
				}
			case 6:
				p.i.RekeyIKE(p.now)
				if s := responder(); s != nil {
					s.RekeyChild(p.now)
				}
			case 7:
				p.now = p.now.Add(time.Duration(next()) * time.Duration(next()) * time.Second)
				p.i.Advance(p.now)
				p.r.Advance(p.now)
			case 8, 9: // any payloads, protected
				e, first, response := message.ExchangeType(next()), message.PayloadType(next()), next()&1 == 1
				plain := take(next()<<8 | next())
				s := responder()
				if s == nil {
					continue
				}
				if op == 8 {
					if b := sealAs(s, p.i, e, first, response, plain); b != nil {
						p.r.Receive(p.now, b, nil, source)
					}
				} else if b := sealAs(p.i, s, e, first, response, plain); b != nil {
					p.i.Receive(p.now, b, nil)
				}
			case 12: // the responder says that it does not know some SA
				spi := uint32(next())
				if len(p.i.children) > 0 && spi < 128 {
					spi = p.i.children[0].OutboundSPI
				}
				p.r.UnknownSPI(p.now, spi, next(), source)
			case 13: // it is started anew
				if next() == 7 {
					p.restart()
				}
			case 10:
				p.i.Liveness(p.now)
				p.i.Retransmit(p.now)
			case 11:
				if next() == 7 {
					p.i.Delete(p.now)
				}
			}
			if wrong && (p.i.state == stateEstablished || len(p.r.Sessions()) > 0) {
				t.Fatal("a login without the password")
			}
			check(t, p.i)
			for _, s := range p.r.bySPI {
				check(t, s)
			}
			logins := 0
			for _, s := range p.r.byInit {
				if s.loggingIn {
					logins++
				}
			}
			if logins != p.r.logins[place(source.Addr())] {
				t.Fatalf("%d logins, counted as %v", logins, p.r.logins)
			}
			if p.r.halfOpen < 0 || p.r.halfOpen > len(p.r.byInit) {
				t.Fatalf("%d half-open of %d", p.r.halfOpen, len(p.r.byInit))
			}
		}
		// However it went, time ends it: no timer is stuck in the past.
		for range 50 {
			before := p.now
			if !p.next() {
				break
			}
			if t := p.r.NextTimeout(); !t.IsZero() && !t.After(p.now) && p.now.Equal(before) {
				p.t.Fatal("a timer does not move")
			}
		}
	})
}

func check(t *testing.T, s *Session) {
	if len(s.children) > maxChildren+1 || len(s.sas) > maxIKESAs+1 || len(s.queue) > 4*maxChildren {
		t.Fatalf("%d children, %d IKE SAs, %d tasks", len(s.children), len(s.sas), len(s.queue))
	}
	if len(s.sa.awaited) > maxAwaited {
		t.Fatalf("%d exchanges awaited", len(s.sa.awaited))
	}
	if s.state == stateClosed && len(s.children) > 0 {
		t.Fatal("closed with children")
	}
}

// FuzzReceive gives any bytes to a responder that has seen nothing, as the
// first message of anyone on the Internet.
func FuzzReceive(f *testing.F) {
	p := newPair(f)
	f.Add(p.toR[0].msg)
	p.establish()
	for _, b := range p.raw {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := NewResponder(p.rc)
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			r.Receive(p.now, b, nil, source)
		}
		var sent int
		for _, e := range r.Events() {
			if s, ok := e.Event.(Send); ok {
				sent += len(s.Message)
			}
		}
		if len(r.byInit) > 1 {
			t.Fatal("a copy made a session of its own")
		}
		if sent > 2*len(b)+1000 {
			t.Fatalf("%d bytes for %d", sent, len(b))
		}
	})
}
