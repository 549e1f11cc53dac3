package ike

import (
	"bytes"
	"slices"
	"testing"
	"time"

	"github.com/godwit-net/godwit/ipsec/ike/message"
)

// bulky makes IKE_AUTH as big as certificates do: 4 KB in each direction.
func bulky(p *pair) {
	p.ic.Request = append(p.ic.Request, Attribute{ApplicationVersion, make([]byte, 4096)})
	assign := p.rc.Assign
	p.rc.Assign = func(who *Peer, request Configuration) (Configuration, error) {
		c, err := assign(who, request)
		return append(c, Attribute{ApplicationVersion, bytes.Repeat([]byte{7}, 4096)}), err
	}
}

// A big IKE_AUTH goes in fragments of at most 1,200 bytes, in any order, with
// copies and losses, and both ends agree.
func TestFragmentedAuth(t *testing.T) {
	for _, tt := range []struct {
		name string
		mix  func(q []packet) []packet
	}{
		{"in order", func(q []packet) []packet { return q }},
		{"backwards", func(q []packet) []packet { slices.Reverse(q); return q }},
		{"twice", func(q []packet) []packet { return append(q[:len(q):len(q)], q...) }},
		{"the second lost", func(q []packet) []packet { return slices.Delete(q, 1, 2) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := newPair(t, bulky)
			p.toResponder()
			p.toInitiator()
			if len(p.toR) != 4 {
				t.Fatalf("%d messages, want 4 fragments", len(p.toR))
			}
			for _, k := range p.toR {
				if len(k.msg) > defaultFragmentSize {
					t.Fatalf("a fragment of %d bytes", len(k.msg))
				}
			}
			p.toR = tt.mix(p.toR)
			for len(p.toR) > 0 {
				p.toResponder()
			}
			p.toI = slices.DeleteFunc(p.toI, func(k packet) bool { return len(k.msg) == 0 })
			if len(p.toI) > 0 {
				p.toI = tt.mix(p.toI)
			}
			p.pass(5 * time.Second)
			p.establish()
			if c := find[Established](p.eventsI)[0].Configuration; len(c) < 3 || !bytes.Equal(c[2].Value, bytes.Repeat([]byte{7}, 4096)) {
				t.Fatal("the configuration is not what was sent")
			}
			// A new IKE SA goes on with fragments.
			p.i.RekeyIKE(p.now)
			p.run()
			if p.i.sa.fragment != defaultFragmentSize || p.session().sa.fragment != defaultFragmentSize {
				t.Fatal("fragmentation was lost at rekeying")
			}
		})
	}
}

// "the responder [...] MUST only" answer again for the first fragment. RFC
// 7383, Section 2.6.1
func TestFragmentRetransmission(t *testing.T) {
	p := newPair(t, bulky)
	p.toResponder()
	p.toInitiator()
	request := slices.Clone(p.toR)
	p.establish()
	for i, want := range []int{4, 0, 0, 0} {
		n := len(p.raw)
		p.toR = []packet{request[i]}
		p.toResponder()
		if got := len(p.raw) - n; got != want {
			t.Errorf("fragment %d again: %d messages, want %d", i+1, got, want)
		}
		p.toI = nil
	}
}

// Without the notification from both ends nothing is cut, nor are fragments
// taken.
func TestNoFragmentation(t *testing.T) {
	for _, side := range []func(*pair){
		func(p *pair) { p.ic.FragmentSize = -1 },
		func(p *pair) { p.rc.FragmentSize = -1 },
	} {
		p := newPair(t, bulky, side)
		p.toResponder()
		p.toInitiator()
		if len(p.toR) != 1 || len(p.toR[0].msg) < 4096 {
			t.Fatalf("%d messages", len(p.toR))
		}
		p.establish()
		sa := p.i.sa
		sa.fragment = minFragmentSize
		all, err := sa.seal(message.Informational, sa.nextSend, false, []message.Payload{&message.VendorID{Data: make([]byte, 500)}})
		if err != nil {
			t.Fatal(err)
		}
		n := len(p.raw)
		for _, b := range all {
			p.r.Receive(p.now, b, nil, source)
		}
		if p.collect(); len(p.raw) != n {
			t.Fatal("fragments were taken")
		}
	}
}

// What one message makes us keep is bounded, and a sender that goes over to
// smaller fragments starts anew (RFC 7383, Section 2.6).
func TestAssemblyBounds(t *testing.T) {
	var a assembly
	f := func(n, total uint16) *message.Fragment { return &message.Fragment{Number: n, Total: total} }
	for i := range uint16(63) {
		if a.add(1, f(i+1, 64), nil, make([]byte, 1000)) {
			t.Fatal("whole before the last fragment")
		}
	}
	if a.size > maxAssembled {
		t.Fatalf("%d bytes kept", a.size)
	}
	a = assembly{}
	a.add(1, f(1, 2), nil, []byte("old"))
	if a.add(1, f(2, 3), nil, []byte("b")) || a.have != 1 {
		t.Fatal("a fragment of a bigger total does not void the others")
	}
	if a.add(1, f(2, 2), nil, []byte("old")) || a.have != 1 {
		t.Fatal("a late fragment of a smaller total counts")
	}
	if a.add(1, f(1, 3), nil, []byte("a")) || !a.add(1, f(3, 3), nil, []byte("c")) {
		t.Fatal("not whole with all fragments there")
	}
	// Another message ID.
	a = assembly{}
	a.add(1, f(1, 2), nil, nil)
	if a.add(2, f(2, 2), nil, nil) {
		t.Fatal("fragments of two messages make one")
	}
}
