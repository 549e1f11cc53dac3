package ike

import (
	"crypto/sha256"

	"github.com/godwit-net/godwit/ipsec/ike/message"
)

const (
	// defaultFragmentSize is what fits a path of 1280 bytes, the least that IPv6
	// has, beside the headers of IPv6 and UDP and the non-ESP marker (RFC 7383,
	// Section 2.5.1).
	defaultFragmentSize = 1200
	minFragmentSize     = 256
	// smallFragment is what fits the 576 bytes that every path of IPv4 passes. It
	// is for messages with keys of a KEM, which all connections depend on, and
	// which would be the only ones that do not fit.
	smallFragment = 532
	// maxAssembled bounds what fragments of one message make us keep. Half-open
	// SAs may send fragments too.
	maxAssembled = 20 << 10
)

// An assembly is the fragments that came of one message. There is one for
// requests and one for responses, as the windows hold one message each. All in
// it is decrypted and so comes from the peer.
type assembly struct {
	id    uint32
	first message.PayloadType
	flags byte              // of fragment 1's generic header
	mark  [sha256.Size]byte // hash of fragment 1 as it came
	parts [][]byte          // by number; nil for those that have not come
	have  int
	size  int
}

// add takes a decrypted fragment; done tells that it was the last one missing.
func (a *assembly) add(id uint32, f *message.Fragment, msg, plain []byte) (done bool) {
	if a.id != id || len(a.parts) < int(f.Total) {
		// "If the Total Fragments field [...] is greater than the stored one",
		// the sender tries smaller ones: what is there is void. Section 2.6
		*a = assembly{id: id, parts: make([][]byte, f.Total)}
	}
	if len(a.parts) != int(f.Total) || a.parts[f.Number-1] != nil || a.size+len(plain) > maxAssembled {
		return false
	}
	if f.Number == 1 {
		a.first, a.flags, a.mark = f.First, f.Flags, sha256.Sum256(msg)
	}
	a.parts[f.Number-1] = append([]byte{}, plain...)
	a.have++
	a.size += len(plain)
	return a.have == len(a.parts)
}

// An opened message is what was inside the Encrypted payload.
type opened struct {
	payloads []message.Payload
	// mark identifies the message by its bytes, those of its first fragment if it
	// has several.
	mark [sha256.Size]byte

	// What AppendAuthenticated needs.
	first message.PayloadType
	flags byte
	plain []byte
}

// open decrypts a message or a fragment of one. The result is nil as long as
// fragments are missing. An error that does not match message.ErrSyntax or
// *message.CriticalError means that the message may be anyone's; with the
// others only mark is set.
func (sa *ikeSA) open(a *assembly, id uint32, msg []byte) (*opened, error) {
	m, err := message.Parse(msg)
	if err != nil || sa.in == nil {
		return nil, errICV
	}
	o := &opened{mark: sha256.Sum256(msg)}
	if e, ok := message.Find[*message.Encrypted](m.Payloads); ok {
		if o.plain, err = e.Plain(msg, sa.in); err != nil {
			return o, err
		}
		o.first, o.flags = e.First, e.Flags
		o.payloads, err = message.ParseInner(o.first, o.plain)
		return o, err
	}
	f, ok := message.Find[*message.Fragment](m.Payloads)
	if !ok || sa.fragment == 0 {
		return nil, errICV
	}
	plain, err := f.Open(msg, sa.in)
	if err != nil {
		return nil, err
	}
	if !a.add(id, f, msg, plain) {
		return nil, nil
	}
	for _, p := range a.parts {
		o.plain = append(o.plain, p...)
	}
	o.first, o.flags, o.mark = a.first, a.flags, a.mark
	*a = assembly{}
	o.payloads, err = message.ParseInner(o.first, o.plain)
	return o, err
}

// fragmentation is what IKE_SA_INIT says about fragments.
func (c *Config) fragmentation() []message.Payload {
	if c.FragmentSize < 0 {
		return nil
	}
	return []message.Payload{&message.Notify{NotifyType: message.FragmentationSupported}}
}

// agreedFragment is the size of fragments with a peer that sent ps.
func (c *Config) agreedFragment(ps []message.Payload) int {
	if c.FragmentSize < 0 || message.FindNotify(ps, message.FragmentationSupported) == nil {
		return 0
	}
	return c.FragmentSize
}
