package regmsg

import "net/netip"

// Parse reads a whole message; its type is the first byte's. Errors match
// ErrMalformed or ErrUnsupported.
func Parse(b []byte) (Message, error) { return nil, ErrMalformed }

// AppendPacket appends an inner IP packet with UDP that carries m.
func AppendPacket(dst []byte, from, to netip.Addr, m Message) ([]byte, error) { return dst, nil }

// ParsePacket reads what AppendPacket wrote.
func ParsePacket(ip []byte) (from, to netip.Addr, m Message, err error) {
	return from, to, nil, ErrNotRegistration
}

// IsRegistration reports that an inner IP packet is UDP to port 434.
func IsRegistration(ip []byte) bool { return false }

// AppendBinary appends the message to b.
func (r *Request) AppendBinary(b []byte) ([]byte, error) { return b, nil }

// UnmarshalBinary reads a message.
func (r *Request) UnmarshalBinary(b []byte) error { return nil }

func (r *Request) String() string { return "" }

// AppendBinary appends the message to b.
func (r *Reply) AppendBinary(b []byte) ([]byte, error) { return b, nil }

// UnmarshalBinary reads a message.
func (r *Reply) UnmarshalBinary(b []byte) error { return nil }

func (r *Reply) String() string { return "" }
