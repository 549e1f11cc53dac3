package regmsg

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/godwit-net/godwit/transports"
)

// Message types, RFC 5944, Sections 3.3 and 3.4.
const (
	typeRequest = 1
	typeReply   = 3

	requestHeaderLen = 24
	replyHeaderLen   = 20
)

// flagD says that the client decapsulates packets itself, the care-of address
// being its own and not a foreign agent's; RFC 5944, Section 3.3.
const flagD = 0x20

// flagS asks for simultaneous bindings; RFC 5944, Section 3.3.
const flagS = 0x80

// Extensions. Types below 128 must be understood, the others may be skipped;
// RFC 5944, Section 1.8. RFC 3115 adds the two for vendors.
const (
	extCVSE = 38
	extNVSE = 134

	cvseHeaderLen = 4     // type, reserved, length
	cvseVendorLen = 4 + 2 // vendor ID and vendor type count in the length
	nvseMinLen    = 2 + 4 + 2

	vendorTypeRequest = 1
	vendorTypeReply   = 2

	firstSkippable = 128
)

// Elements of our extension, in the order in which they must appear, each at
// most once. Unknown ones from elemSkippable on are skipped; others refused.
const (
	elemNumber      = 1
	elemHomeAddress = 2
	elemHomeAgent   = 3
	elemSent        = 4
	elemSeen        = 5
	elemSupported   = 6
	elemOffers      = 7
	elemSelected    = 8
	elemOutcome     = 9
	elemReceived    = 10
	elemPaddedSize  = 11
	elemFlags       = 12
	elemCookie      = 13
	elemDecision    = 14
	elemDown        = 15

	elemSkippable = 128
	elemTrigger   = 128
	elemHeard     = 129
	elemWays      = 130

	elemHeaderLen = 3 // type 8, length 16
)

// Bits of elemFlags.
const (
	flagProbe     = 0x01
	flagValidated = 0x02
	flagHere      = 0x04
	flagOneWay    = 0x08
)

func malformed(format string, a ...any) error {
	return fmt.Errorf("%w: %s", ErrMalformed, fmt.Sprintf(format, a...))
}

// AppendBinary appends the message to b. The error matches ErrTooLong.
func (r *Request) AppendBinary(b []byte) ([]byte, error) {
	w := writer{b: b}
	flags := byte(flagD)
	if r.Simultaneous {
		flags |= flagS
	}
	w.b = append(w.b, typeRequest, flags)
	w.b = binary.BigEndian.AppendUint16(w.b, r.Lifetime)
	w.addr4(r.HomeAddress)
	w.addr4(r.HomeAgent)
	w.addr4(r.Sent.Source.Addr()) // care-of address
	w.b = binary.BigEndian.AppendUint64(w.b, r.Identification)

	start := w.cvse(vendorTypeRequest)
	w.number(r.Number)
	w.home(r.HomeAddress, r.HomeAgent)
	w.description(elemSent, r.Sent)
	w.names(r.Supported)
	w.received(r.Received)
	w.paddedSize(r.PaddedSize)
	if r.Probe {
		w.flags(flagProbe)
	}
	w.cookie(r.Cookie)
	w.decision(r.Decision)
	if r.Down != "" && r.Decision == 0 {
		w.fail("way down %s without a decision", r.Down)
	}
	w.down(r.Down)
	w.trigger(r.Trigger)
	w.ways(r.Ways)
	return w.finish(len(b), start)
}

// UnmarshalBinary reads a whole request. The error matches ErrMalformed or
// ErrUnsupported.
func (r *Request) UnmarshalBinary(b []byte) error {
	if len(b) < requestHeaderLen || b[0] != typeRequest {
		return malformed("request header")
	}
	// The flags of RFC 5944 other than S and D ask for what foreign agents and
	// broadcasts need; they change nothing here.
	m := Request{
		Simultaneous:   b[1]&flagS != 0,
		Lifetime:       binary.BigEndian.Uint16(b[2:]),
		HomeAddress:    addr4(b[4:]),
		HomeAgent:      addr4(b[8:]),
		Identification: binary.BigEndian.Uint64(b[16:]),
	}
	careOf := addr4(b[12:])
	err := extensions(b[requestHeaderLen:], vendorTypeRequest, func(t byte, v *reader) {
		switch t {
		case elemNumber:
			m.Number = v.uint32()
		case elemHomeAddress:
			v.home(&m.HomeAddress)
		case elemHomeAgent:
			v.home(&m.HomeAgent)
		case elemSent:
			m.Sent = v.description()
		case elemSupported:
			m.Supported = v.names()
		case elemReceived:
			m.Received = v.received()
		case elemPaddedSize:
			m.PaddedSize = v.uint16()
		case elemFlags:
			v.check(v.uint8() == flagProbe)
			m.Probe = true
		case elemCookie:
			m.Cookie = v.cookie()
		case elemDecision:
			m.Decision = v.uint16()
		case elemDown:
			m.Down = v.name()
			v.check(m.Down != "" && m.Decision != 0)
		case elemTrigger:
			m.Trigger = v.trigger()
		case elemWays:
			m.Ways = v.ways()
		default:
			v.unknown()
		}
	}, elemNumber, elemSent)
	if err != nil {
		return err
	}
	want := m.Sent.Source.Addr()
	if !want.Is4() || want.IsUnspecified() {
		want = netip.Addr{}
	}
	if careOf != want {
		return malformed("care-of address differs from the source as sent")
	}
	*r = m
	return nil
}

// AppendBinary appends the message to b. The error matches ErrTooLong.
func (r *Reply) AppendBinary(b []byte) ([]byte, error) {
	w := writer{b: b}
	w.b = append(w.b, typeReply, byte(r.Code))
	w.b = binary.BigEndian.AppendUint16(w.b, r.Lifetime)
	w.addr4(r.HomeAddress)
	w.addr4(r.HomeAgent)
	w.b = binary.BigEndian.AppendUint64(w.b, r.Identification)

	start := w.cvse(vendorTypeReply)
	w.number(r.Number)
	w.home(r.HomeAddress, r.HomeAgent)
	w.description(elemSent, r.Sent)
	w.description(elemSeen, r.Seen)
	w.offers(r.Offers)
	w.selected(r.Up, r.Down)
	if r.Verdict >= numVerdicts {
		w.fail("verdict %d", r.Verdict)
	}
	w.elem(elemOutcome, func() {
		w.b = binary.BigEndian.AppendUint16(w.b, r.Revision)
		w.b = append(w.b, byte(r.Verdict))
	})
	w.received(r.Received)
	w.paddedSize(r.PaddedSize)
	var f byte
	if r.Validated {
		f |= flagValidated
	}
	if r.Here {
		f |= flagHere
	}
	if r.OneWay {
		f |= flagOneWay
	}
	w.flags(f)
	w.cookie(r.Cookie)
	w.decision(r.Decision)
	w.heard(r.Heard)
	return w.finish(len(b), start)
}

// UnmarshalBinary reads a whole reply. The error matches ErrMalformed or
// ErrUnsupported.
func (r *Reply) UnmarshalBinary(b []byte) error {
	if len(b) < replyHeaderLen || b[0] != typeReply {
		return malformed("reply header")
	}
	m := Reply{
		Code:           Code(b[1]),
		Lifetime:       binary.BigEndian.Uint16(b[2:]),
		HomeAddress:    addr4(b[4:]),
		HomeAgent:      addr4(b[8:]),
		Identification: binary.BigEndian.Uint64(b[12:]),
	}
	err := extensions(b[replyHeaderLen:], vendorTypeReply, func(t byte, v *reader) {
		switch t {
		case elemNumber:
			m.Number = v.uint32()
		case elemHomeAddress:
			v.home(&m.HomeAddress)
		case elemHomeAgent:
			v.home(&m.HomeAgent)
		case elemSent:
			m.Sent = v.description()
		case elemSeen:
			m.Seen = v.description()
		case elemOffers:
			m.Offers = v.offers()
		case elemSelected:
			m.Up, m.Down = v.name(), v.name()
		case elemOutcome:
			m.Revision = v.uint16()
			m.Verdict = Verdict(v.uint8())
			v.check(m.Verdict < numVerdicts)
		case elemReceived:
			m.Received = v.received()
		case elemPaddedSize:
			m.PaddedSize = v.uint16()
		case elemFlags:
			f := v.uint8()
			v.check(f != 0 && f&^(flagValidated|flagHere|flagOneWay) == 0)
			m.Validated, m.Here, m.OneWay = f&flagValidated != 0, f&flagHere != 0, f&flagOneWay != 0
		case elemCookie:
			m.Cookie = v.cookie()
		case elemDecision:
			m.Decision = v.uint16()
		case elemHeard:
			m.Heard = v.heard()
		default:
			v.unknown()
		}
	}, elemNumber, elemSent, elemSeen, elemOutcome)
	if err != nil {
		return err
	}
	*r = m
	return nil
}

// Parse reads a whole message; its type is in the first byte. Errors match
// ErrMalformed or ErrUnsupported.
func Parse(b []byte) (Message, error) {
	if len(b) == 0 {
		return nil, malformed("empty")
	}
	var m Message
	switch b[0] {
	case typeRequest:
		m = new(Request)
	case typeReply:
		m = new(Reply)
	default:
		return nil, fmt.Errorf("%w: type %d", ErrUnsupported, b[0])
	}
	if err := m.UnmarshalBinary(b); err != nil {
		return nil, err
	}
	return m, nil
}

// String tells what a log needs.
func (r *Request) String() string {
	kind := "request"
	switch {
	case r.Decision != 0:
		kind = "decision"
	case r.Confirmation():
		kind = "confirmation"
	case r.Probe:
		kind = "probe"
	}
	return fmt.Sprintf("%s %d by %s from %v to %v, padded to %d", kind, r.Number, r.Sent.Encapsulation, r.Sent.Source, r.Sent.Destination, r.PaddedSize)
}

// String tells what a log needs.
func (r *Reply) String() string {
	return fmt.Sprintf("reply %d.%d by %s: %v, %v, seen %v to %v, up %s, down %s, padded to %d",
		r.Number, r.Revision, r.Sent.Encapsulation, r.Code, r.Verdict, r.Seen.Source, r.Seen.Destination, r.Up, r.Down, r.PaddedSize)
}

// addr4 reads a field of RFC 5944; zero means that it holds no address.
func addr4(b []byte) netip.Addr {
	a := netip.AddrFrom4([4]byte(b))
	if a.IsUnspecified() {
		return netip.Addr{}
	}
	return a
}

// extensions walks the extensions behind the fixed part and hands each element
// of ours to f. It insists on exactly one extension of ours with the elements
// of required in it.
func extensions(b []byte, vendorType uint16, f func(t byte, v *reader), required ...byte) error {
	if len(b) > MaxMessage {
		return malformed("%d bytes", len(b))
	}
	found := false
	for len(b) > 0 {
		switch t := b[0]; {
		case t == extCVSE:
			// Type (8), reserved (8), length (16): what follows the length.
			if len(b) < cvseHeaderLen {
				return malformed("extension header")
			}
			n := int(binary.BigEndian.Uint16(b[2:]))
			if n < cvseVendorLen || len(b) < cvseHeaderLen+n {
				return malformed("extension length")
			}
			v := b[cvseHeaderLen : cvseHeaderLen+n]
			b = b[cvseHeaderLen+n:]
			// "when the Critical extension is encountered but not recognized,
			// the message containing the extension MUST be silently
			// discarded"; RFC 3115, Section 2.
			if binary.BigEndian.Uint32(v) != VendorID || binary.BigEndian.Uint16(v[4:]) != vendorType {
				return fmt.Errorf("%w: critical extension of vendor %d", ErrUnsupported, binary.BigEndian.Uint32(v))
			}
			if found {
				return malformed("extension comes twice")
			}
			found = true
			if err := elements(v[cvseVendorLen:], f, required); err != nil {
				return err
			}
		default:
			// Type (8), length (8): what follows the length.
			if len(b) < 2 || len(b) < 2+int(b[1]) {
				return malformed("extension length")
			}
			if t == extNVSE && b[1] < nvseMinLen {
				return malformed("extension length")
			}
			if t < firstSkippable {
				return fmt.Errorf("%w: extension %d", ErrUnsupported, t)
			}
			b = b[2+int(b[1]):]
		}
	}
	if !found {
		return malformed("extension is missing")
	}
	return nil
}

func elements(b []byte, f func(t byte, v *reader), required []byte) error {
	last := byte(0)
	for len(b) > 0 {
		if len(b) < elemHeaderLen {
			return malformed("element header")
		}
		t, n := b[0], int(binary.BigEndian.Uint16(b[1:]))
		if len(b) < elemHeaderLen+n {
			return malformed("length of element %d", t)
		}
		if t <= last {
			return malformed("element %d is out of order", t)
		}
		last = t
		for len(required) > 0 && required[0] < t {
			return malformed("element %d is missing", required[0])
		}
		if len(required) > 0 && required[0] == t {
			required = required[1:]
		}
		v := reader{b: b[elemHeaderLen : elemHeaderLen+n]}
		f(t, &v)
		switch {
		case v.strange && t >= elemSkippable:
		case v.strange:
			return fmt.Errorf("%w: element %d", ErrUnsupported, t)
		case v.bad || len(v.b) > 0:
			return malformed("element %d", t)
		}
		b = b[elemHeaderLen+n:]
	}
	if len(required) > 0 {
		return malformed("element %d is missing", required[0])
	}
	return nil
}

// canonical is how addresses are written: without zone, IPv4 as itself.
func canonical(ap netip.AddrPort) netip.AddrPort {
	if !ap.Addr().IsValid() {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(ap.Addr().Unmap().WithZone(""), ap.Port())
}

// validName holds for names that the wire carries: 1 to MaxNameLen lower-case
// letters, digits and hyphens.
func validName(n transports.Name) bool {
	if len(n) == 0 || len(n) > MaxNameLen {
		return false
	}
	for _, c := range []byte(n) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return true
}
