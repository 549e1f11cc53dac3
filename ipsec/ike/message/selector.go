package message

import (
	"encoding/binary"
	"fmt"
	"net/netip"
)

// MaxSelectors bounds the traffic selectors of one payload.
const MaxSelectors = 64

// Traffic selector types, RFC 7296, Section 3.13.1.
const (
	tsIPv4 = 7
	tsIPv6 = 8
)

// A TS is a Traffic Selector payload, RFC 7296, Section 3.13. Selectors of
// other types than addresses are left out.
//
//	 0                   1                   2                   3
//	 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	| Next Payload  |C|  RESERVED   |         Payload Length        |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	| Number of TSs |                 RESERVED                      |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	~                       <Traffic Selectors>                     ~
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
type TS struct {
	Responder bool // TSr rather than TSi
	Selectors []TrafficSelector
}

// A TrafficSelector is a range of addresses, a range of ports and a protocol,
// RFC 7296, Section 3.13.1. Both addresses are of one family.
//
//	 0                   1                   2                   3
//	 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|   TS Type     |IP Protocol ID |       Selector Length         |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|           Start Port          |           End Port            |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	~                         Starting Address                      ~
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	~                         Ending Address                        ~
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
type TrafficSelector struct {
	Protocol           uint8 // IP protocol; 0 is any
	StartPort, EndPort uint16
	Start, End         netip.Addr
}

// String writes the selector as start-end, with protocol and ports if it has any.
func (t TrafficSelector) String() string {
	s := fmt.Sprintf("%v-%v", t.Start, t.End)
	if t.Protocol != 0 || t.StartPort != 0 || t.EndPort != 0xffff {
		s += fmt.Sprintf("[%d/%d-%d]", t.Protocol, t.StartPort, t.EndPort)
	}
	return s
}

// Contains reports whether the address range holds a.
func (t TrafficSelector) Contains(a netip.Addr) bool {
	a = a.Unmap()
	return a.BitLen() == t.Start.BitLen() && t.Start.Compare(a) <= 0 && a.Compare(t.End) <= 0
}

// Intersect gives what both selectors have in common; ok is false for nothing.
func (t TrafficSelector) Intersect(o TrafficSelector) (_ TrafficSelector, ok bool) {
	if t.Start.BitLen() != o.Start.BitLen() {
		return t, false
	}
	switch {
	case t.Protocol == 0:
		t.Protocol = o.Protocol
	case o.Protocol != 0 && o.Protocol != t.Protocol:
		return t, false
	}
	if o.Start.Compare(t.Start) > 0 {
		t.Start = o.Start
	}
	if o.End.Compare(t.End) < 0 {
		t.End = o.End
	}
	t.StartPort, t.EndPort = max(t.StartPort, o.StartPort), min(t.EndPort, o.EndPort)
	return t, t.Start.Compare(t.End) <= 0 && t.StartPort <= t.EndPort
}

// Type is TypeTSi or TypeTSr.
func (t *TS) Type() PayloadType {
	if t.Responder {
		return TypeTSr
	}
	return TypeTSi
}

func parseTS(b []byte, responder bool) (*TS, error) {
	if len(b) < 4 {
		return nil, fmt.Errorf("traffic selectors of %d bytes: %w", len(b), ErrSyntax)
	}
	count := int(b[0]) // Number of TSs (8)
	if count > MaxSelectors {
		return nil, fmt.Errorf("%d traffic selectors: %w", count, ErrSyntax)
	}
	ts := &TS{Responder: responder}
	b = b[4:]
	for range count {
		if len(b) < 8 {
			return nil, fmt.Errorf("traffic selector cut off: %w", ErrSyntax)
		}
		n := int(binary.BigEndian.Uint16(b[2:])) // Selector Length (16)
		if n < 8 || n > len(b) {
			return nil, fmt.Errorf("traffic selector of %d bytes in %d: %w", n, len(b), ErrSyntax)
		}
		if s, ok := parseSelector(b[:n]); ok {
			ts.Selectors = append(ts.Selectors, s)
		}
		b = b[n:]
	}
	if len(b) != 0 {
		return nil, fmt.Errorf("%d bytes after the traffic selectors: %w", len(b), ErrSyntax)
	}
	return ts, nil
}

// parseSelector refuses other types and empty ranges: "systems that do not
// support" one ignore it, and a range that holds nothing selects nothing. The
// one range with its start above its end that has a meaning is the ports' OPAQUE
// (65535-0), which only a peer that wants fragments without ports sends.
func parseSelector(b []byte) (s TrafficSelector, ok bool) {
	size := 4
	switch b[0] {
	case tsIPv4:
	case tsIPv6:
		size = 16
	default:
		return s, false
	}
	if len(b) != 8+2*size {
		return s, false
	}
	s.Protocol = b[1]
	s.StartPort = binary.BigEndian.Uint16(b[4:])
	s.EndPort = binary.BigEndian.Uint16(b[6:])
	s.Start, _ = netip.AddrFromSlice(b[8 : 8+size])
	s.End, _ = netip.AddrFromSlice(b[8+size:])
	return s, s.StartPort <= s.EndPort && s.Start.Compare(s.End) <= 0
}

func (t *TS) appendBody(b []byte) ([]byte, error) {
	if len(t.Selectors) > MaxSelectors {
		return nil, fmt.Errorf("%d traffic selectors: %w", len(t.Selectors), ErrTooBig)
	}
	b = append(b, byte(len(t.Selectors)), 0, 0, 0)
	for _, s := range t.Selectors {
		if !s.Start.IsValid() || s.Start.BitLen() != s.End.BitLen() {
			return nil, fmt.Errorf("traffic selector %v: %w", s, ErrSyntax)
		}
		typ, n := byte(tsIPv4), 16
		if s.Start.BitLen() == 128 {
			typ, n = tsIPv6, 40
		}
		b = append(b, typ, s.Protocol, 0, byte(n))
		b = binary.BigEndian.AppendUint16(b, s.StartPort)
		b = binary.BigEndian.AppendUint16(b, s.EndPort)
		b = append(b, s.Start.AsSlice()...)
		b = append(b, s.End.AsSlice()...)
	}
	return b, nil
}
