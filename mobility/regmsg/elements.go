package regmsg

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/godwit-net/godwit/transports"
)

// Address families inside our elements.
const (
	family0 = 0 // unknown, and neither address nor port follow
	family4 = 4
	family6 = 6
)

// A writer appends elements and keeps the first error.
type writer struct {
	b   []byte
	err error
}

func (w *writer) fail(format string, a ...any) {
	if w.err == nil {
		w.err = fmt.Errorf("%w: %s", ErrTooLong, fmt.Sprintf(format, a...))
	}
}

// addr4 writes a field of RFC 5944, zero for what does not fit.
func (w *writer) addr4(a netip.Addr) {
	var v [4]byte
	if a = a.Unmap(); a.Is4() {
		v = a.As4()
	}
	w.b = append(w.b, v[:]...)
}

// cvse begins our extension and returns where it starts; finish ends it.
func (w *writer) cvse(vendorType uint16) int {
	start := len(w.b)
	w.b = append(w.b, extCVSE, 0, 0, 0)
	w.b = binary.BigEndian.AppendUint32(w.b, VendorID)
	w.b = binary.BigEndian.AppendUint16(w.b, vendorType)
	return start
}

// finish fills in the extension's length; message is where the message starts.
func (w *writer) finish(message, start int) ([]byte, error) {
	if n := len(w.b) - message; n > MaxMessage {
		w.fail("%d bytes", n)
	}
	if w.err != nil {
		return w.b[:message], w.err
	}
	binary.BigEndian.PutUint16(w.b[start+2:], uint16(len(w.b)-start-cvseHeaderLen))
	return w.b, nil
}

// elem writes an element whose value body appends.
func (w *writer) elem(t byte, body func()) {
	at := len(w.b)
	w.b = append(w.b, t, 0, 0)
	body()
	if n := len(w.b) - at - elemHeaderLen; n <= 0xffff {
		binary.BigEndian.PutUint16(w.b[at+1:], uint16(n))
	} else {
		w.fail("element %d", t)
	}
}

func (w *writer) number(n uint32) {
	w.elem(elemNumber, func() { w.b = binary.BigEndian.AppendUint32(w.b, n) })
}

// home writes the inner addresses that RFC 5944 has no room for.
func (w *writer) home(address, agent netip.Addr) {
	for t, a := range map6(address, agent) {
		if a.IsValid() {
			w.elem(byte(elemHomeAddress+t), func() { w.b = append(w.b, a.AsSlice()...) })
		}
	}
}

func map6(as ...netip.Addr) []netip.Addr {
	for i, a := range as {
		if a = a.WithZone(""); !a.Is6() || a.Is4In6() {
			a = netip.Addr{}
		}
		as[i] = a
	}
	return as
}

func (w *writer) name(n transports.Name) {
	if n != "" && !validName(n) {
		w.fail("encapsulation %q", n)
		return
	}
	w.text(string(n))
}

func (w *writer) text(s string) {
	if len(s) > MaxString {
		w.fail("text of %d bytes", len(s))
		return
	}
	w.b = append(w.b, byte(len(s)))
	w.b = append(w.b, s...)
}

func (w *writer) addrPort(ap netip.AddrPort) {
	switch ap = canonical(ap); {
	case !ap.Addr().IsValid():
		w.b = append(w.b, family0)
		return
	case ap.Addr().Is4():
		w.b = append(w.b, family4)
	default:
		w.b = append(w.b, family6)
	}
	w.b = append(w.b, ap.Addr().AsSlice()...)
	w.b = binary.BigEndian.AppendUint16(w.b, ap.Port())
}

func (w *writer) description(t byte, d transports.Description) {
	w.elem(t, func() {
		w.name(d.Encapsulation)
		w.addrPort(d.Source)
		w.addrPort(d.Destination)
		if d.Authority == "" && d.Path == "" && d.Proxy == "" && d.CertHash == ([32]byte{}) {
			return
		}
		w.text(d.Authority)
		w.text(d.Path)
		w.text(d.Proxy)
		if d.CertHash != ([32]byte{}) {
			w.b = append(w.b, d.CertHash[:]...)
		}
	})
}

func (w *writer) names(ns []transports.Name) {
	if len(ns) > MaxNames {
		w.fail("%d encapsulations", len(ns))
	}
	if len(ns) == 0 {
		return
	}
	w.elem(elemSupported, func() {
		for _, n := range ns {
			if n == "" {
				w.fail("encapsulation without a name")
			}
			w.name(n)
		}
	})
}

func (w *writer) offers(os []Offer) {
	if len(os) > MaxNames {
		w.fail("%d offers", len(os))
	}
	if len(os) == 0 {
		return
	}
	w.elem(elemOffers, func() {
		for _, o := range os {
			if o.Encapsulation == "" {
				w.fail("encapsulation without a name")
			}
			w.name(o.Encapsulation)
			w.addrPort(o.Address)
		}
	})
}

func (w *writer) selected(up, down transports.Name) {
	if up == "" && down == "" {
		return
	}
	w.elem(elemSelected, func() {
		w.name(up)
		w.name(down)
	})
}

func (w *writer) received(s ReceiveState) {
	if len(s.Missing) > MaxMissing {
		w.fail("receive state of %d bytes", len(s.Missing))
	}
	if s.SPI == 0 && s.Highest == 0 && len(s.Missing) == 0 {
		return
	}
	w.elem(elemReceived, func() {
		w.b = binary.BigEndian.AppendUint32(w.b, s.SPI)
		w.b = binary.BigEndian.AppendUint64(w.b, s.Highest)
		w.b = append(w.b, s.Missing...)
	})
}

func (w *writer) paddedSize(n uint16) {
	if n != 0 {
		w.elem(elemPaddedSize, func() { w.b = binary.BigEndian.AppendUint16(w.b, n) })
	}
}

func (w *writer) flags(f byte) {
	if f != 0 {
		w.elem(elemFlags, func() { w.b = append(w.b, f) })
	}
}

func (w *writer) cookie(c Cookie) {
	if !c.IsZero() {
		w.elem(elemCookie, func() { w.b = append(w.b, c[:]...) })
	}
}

func (w *writer) decision(n uint16) {
	if n != 0 {
		w.elem(elemDecision, func() { w.b = binary.BigEndian.AppendUint16(w.b, n) })
	}
}

func (w *writer) down(n transports.Name) {
	if n == "" {
		return
	}
	w.elem(elemDown, func() { w.name(n) })
}

func (w *writer) ways(ws []Way) {
	if len(ws) > MaxWays {
		w.fail("%d ways", len(ws))
	}
	if len(ws) == 0 {
		return
	}
	w.elem(elemWays, func() {
		for _, x := range ws {
			if x.Encapsulation == "" {
				w.fail("encapsulation without a name")
			}
			w.name(x.Encapsulation)
			w.addrPort(x.Local)
			w.addrPort(x.Remote)
		}
	})
}

func (w *writer) trigger(t Trigger) {
	if t != 0 {
		w.elem(elemTrigger, func() { w.b = append(w.b, byte(t)) })
	}
}

func (w *writer) heard(hs []Heard) {
	if len(hs) > MaxNames {
		w.fail("%d encapsulations", len(hs))
	}
	if len(hs) == 0 {
		return
	}
	w.elem(elemHeard, func() {
		for _, h := range hs {
			if h.Encapsulation == "" {
				w.fail("encapsulation without a name")
			}
			w.name(h.Encapsulation)
			full := byte(0)
			if h.Full {
				full = 1
			}
			w.b = append(w.b, full)
		}
	})
}

// A reader takes an element's value apart. After a mistake it gives zeros.
type reader struct {
	b       []byte
	bad     bool
	strange bool
}

func (r *reader) check(ok bool) {
	if !ok {
		r.bad = true
	}
}

func (r *reader) unknown() { r.strange = true }

func (r *reader) take(n int) []byte {
	if r.bad || len(r.b) < n {
		r.bad = true
		return make([]byte, n)
	}
	v := r.b[:n]
	r.b = r.b[n:]
	return v
}

func (r *reader) uint8() byte     { return r.take(1)[0] }
func (r *reader) uint16() uint16  { return binary.BigEndian.Uint16(r.take(2)) }
func (r *reader) uint32() uint32  { return binary.BigEndian.Uint32(r.take(4)) }
func (r *reader) uint64() uint64  { return binary.BigEndian.Uint64(r.take(8)) }
func (r *reader) text() string    { return string(r.take(int(r.uint8()))) }
func (r *reader) cookie() Cookie  { c := Cookie(r.take(CookieLen)); r.check(!c.IsZero()); return c }
func (r *reader) more(n int) bool { return !r.bad && len(r.b) > 0 && n < MaxNames }

// home reads an inner IPv6 address; the field of RFC 5944 must be empty then.
func (r *reader) home(a *netip.Addr) {
	r.check(!a.IsValid())
	*a = r.addr6()
}

func (r *reader) addr6() netip.Addr {
	a := netip.AddrFrom16([16]byte(r.take(16)))
	r.check(!a.Is4In6())
	return a
}

// name reads a name, which may be empty.
func (r *reader) name() transports.Name {
	n := transports.Name(r.text())
	r.check(n == "" || validName(n))
	return n
}

func (r *reader) addrPort() netip.AddrPort {
	var a netip.Addr
	switch r.uint8() {
	case family0:
		return netip.AddrPort{}
	case family4:
		a = netip.AddrFrom4([4]byte(r.take(4)))
	case family6:
		a = r.addr6()
	default:
		r.bad = true
	}
	return netip.AddrPortFrom(a, r.uint16())
}

func (r *reader) description() (d transports.Description) {
	d.Encapsulation = r.name()
	d.Source = r.addrPort()
	d.Destination = r.addrPort()
	if len(r.b) == 0 {
		return d
	}
	d.Authority = r.text()
	d.Path = r.text()
	d.Proxy = r.text()
	if len(r.b) > 0 {
		d.CertHash = [32]byte(r.take(32))
	}
	return d
}

func (r *reader) names() (ns []transports.Name) {
	for r.more(len(ns)) {
		n := r.name()
		r.check(n != "")
		ns = append(ns, n)
	}
	return ns
}

func (r *reader) offers() (os []Offer) {
	for r.more(len(os)) {
		o := Offer{Encapsulation: r.name(), Address: r.addrPort()}
		r.check(o.Encapsulation != "")
		os = append(os, o)
	}
	return os
}

func (r *reader) heard() (hs []Heard) {
	for r.more(len(hs)) {
		h := Heard{Encapsulation: r.name()}
		r.check(h.Encapsulation != "")
		full := r.uint8()
		r.check(full <= 1)
		h.Full = full == 1
		hs = append(hs, h)
	}
	r.check(len(hs) > 0)
	return hs
}

func (r *reader) ways() (ws []Way) {
	for !r.bad && len(r.b) > 0 && len(ws) < MaxWays {
		x := Way{Encapsulation: r.name(), Local: r.addrPort(), Remote: r.addrPort()}
		r.check(x.Encapsulation != "")
		ws = append(ws, x)
	}
	r.check(len(ws) > 0)
	return ws
}

// trigger reads a trigger; one of later versions counts as not told.
func (r *reader) trigger() Trigger {
	t := Trigger(r.uint8())
	r.check(t != 0)
	if t >= numTriggers {
		return 0
	}
	return t
}

func (r *reader) received() (s ReceiveState) {
	s.SPI = r.uint32()
	s.Highest = r.uint64()
	if n := len(r.b); n > 0 {
		r.check(n <= MaxMissing)
		s.Missing = append(s.Missing, r.take(n)...)
	}
	return s
}
