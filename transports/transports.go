// Package transports holds the words that every encapsulation shares: names,
// packets, carriers and the network they stand on. It implements none of them.
//
// An encapsulation knows that a packet is an IKE message or an ESP packet and
// nothing of what is inside.
package transports

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// A Name names an encapsulation, as users write it in the configuration.
type Name string

// The encapsulations of the design, in the default order of preference.
const (
	ESP       Name = "esp"       // IP protocol 50, RFC 4303
	UDP       Name = "udp"       // RFC 3948
	TCP       Name = "tcp"       // RFC 9329
	WebSocket Name = "websocket" // RFC 6455 binary messages, over TLS or plain
	HTTP      Name = "http"      // plain requests and responses
)

// UDPOn names UDP to another port of the server than the one that all encapsulations
// share: it passes where that one does not. The form is udp-4500.
func UDPOn(port uint16) Name { return UDP + "-" + Name(strconv.Itoa(int(port))) }

// Port is the port in a name that UDPOn gives, and 0 in all others.
func (n Name) Port() uint16 {
	text, ok := strings.CutPrefix(string(n), string(UDP)+"-")
	port, err := strconv.ParseUint(text, 10, 16)
	if !ok || err != nil || n != UDPOn(uint16(port)) {
		return 0
	}
	return uint16(port)
}

// Base is the encapsulation without the port of UDPOn.
func (n Name) Base() Name {
	if n.Port() != 0 {
		return UDP
	}
	return n
}

// Datagrams holds for encapsulations that take what they are given and may lose it;
// streams slow their sender down and send lost packets again.
func (n Name) Datagrams() bool { return n.Base() == UDP || n == ESP }

// A Kind says what a packet is; every encapsulation can tell the two apart.
type Kind uint8

// The two kinds of RFC 3948 and RFC 9329.
const (
	KindESP Kind = iota + 1 // an ESP packet, from its SPI on
	KindIKE                 // an IKE message, from its initiator SPI on
)

// String gives the kind's name in lower case.
func (k Kind) String() string {
	switch k {
	case KindESP:
		return "esp"
	case KindIKE:
		return "ike"
	}
	return "unknown"
}

// MaxPacket is the largest packet that any encapsulation carries, in bytes:
// RFC 9329 counts 16 bits including the length field and the non-ESP marker.
const MaxPacket = 65535 - 2 - 4

// A Packet is one IKE message or one ESP packet, without the marker or length
// that the encapsulation adds.
type Packet struct {
	Kind Kind
	// Urgent packets (registrations, IKE, keepalives) go ahead of a carrier's
	// queue and never wait for room in it.
	Urgent bool
	Data   []byte
}

// A Description tells how a packet was sent, as one end of the path sees it.
// Comparing both ends' descriptions shows what lies between them.
type Description struct {
	Encapsulation Name
	Source        netip.AddrPort // of the end that sent the packet described
	Destination   netip.AddrPort

	// For encapsulations in HTTP; empty elsewhere.
	Authority string   // the Host that was asked for
	Path      string   // the request path
	Proxy     string   // host:port of the upstream proxy in use
	CertHash  [32]byte // SHA-256 of the TLS certificate seen or shown, zero without TLS
}

// Reverse is the description of a packet that goes the other way.
func (d Description) Reverse() Description {
	d.Source, d.Destination = d.Destination, d.Source
	return d
}

// AddrPort reads the address and port of a socket address. IPv4 in IPv6 comes
// out as IPv4. It gives the zero AddrPort for anything else.
func AddrPort(a net.Addr) netip.AddrPort {
	var ap netip.AddrPort
	switch a := a.(type) {
	case nil:
	case interface{ AddrPort() netip.AddrPort }: // *net.TCPAddr, *net.UDPAddr
		ap = a.AddrPort()
	default:
		ap, _ = netip.ParseAddrPort(a.String())
	}
	return Unmap(ap)
}

// Unmap turns IPv4 in IPv6 into IPv4.
func Unmap(ap netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}

// Errors that carriers return and callers test for.
var (
	ErrTooBig   = errors.New("packet is larger than the encapsulation carries")
	ErrFull     = errors.New("the carrier's queue is full")
	ErrProtocol = errors.New("the peer broke the encapsulation's rules")
)

// A Carrier is one live use of an encapsulation between two endpoints. Its
// methods may be called from several goroutines. After Close each method that
// fails returns an error matching net.ErrClosed.
type Carrier interface {
	Name() Name

	// Send hands over packets in order and keeps none of them. Packets that
	// are not urgent wait while the carrier's queue is full, until there is
	// room or the carrier is closed: that is the backpressure of streams.
	// Urgent ones go ahead of those and return ErrFull rather than wait.
	// A packet above MTU gives ErrTooBig, and the others are still sent.
	Send(ps []Packet) error

	// MTU is the largest packet that Send takes, in bytes; it counts Packet.Data,
	// not the encapsulation's own headers. Over UDP an IKE message has four
	// bytes less, for its non-ESP marker (RFC 3948, Section 2.2).
	MTU() int

	// Describe gives the addresses as this end sees them, Source being this end.
	Describe() Description

	// Validated reports that the encapsulation itself has proven that the peer
	// receives at its address, as a TCP handshake does (RFC 9000, Section 8.1).
	Validated() bool

	// Close ends the carrier at once; packets still queued are dropped.
	Close() error
}

// Trusted is what carriers implement that a server gives up on unless their
// peer shows that it holds keys.
type Trusted interface {
	// Trust says that an authentic packet came by the carrier.
	Trust()
}

// Admitting is what carriers of a server implement that answers no strangers: some
// have to be something else for them, a web server's connection.
type Admitting interface {
	// Admit says that a packet came by the carrier that no stranger can send. A Handler
	// calls it before Receive returns.
	Admit()
	// Admitted tells whether Admit was called.
	Admitted() bool
}

// A Handler takes what carriers receive.
type Handler interface {
	// Receive is called with packets in order of arrival. They are valid, and
	// may be written over, until it returns. While it runs, the carrier reads
	// nothing more. It may be called from several goroutines for different
	// carriers, and for the carriers of one UDP socket from one.
	Receive(c Carrier, ps []Packet)

	// Closed tells once that a carrier has ended. err matches net.ErrClosed if
	// this end closed it. No Receive for that carrier follows.
	Closed(c Carrier, err error)
}

// An Opening says how to open a carrier.
type Opening struct {
	Network Network
	Local   netip.Addr     // the address to send from; the zero Addr leaves it to the system
	Remote  netip.AddrPort // the server's address and the one port of all encapsulations

	// First is called once, when the carrier's addresses are known and before
	// its first byte leaves; what it returns rides in the first flight. It may
	// be nil. The packets must stay as they are until Dial returns.
	First func(Description) []Packet

	// Replayable says that what First gives may reach the server more than once,
	// as data in a TCP handshake may. ESP packets may: they die in the window.
	Replayable bool

	Handler Handler
}

// A Transport opens carriers of one encapsulation.
type Transport interface {
	Name() Name

	// Dial opens a carrier. It returns when the carrier takes packets, which
	// for UDP is at once. Cancelling ctx ends the attempt, not the carrier.
	// Handler calls may come before Dial returns.
	Dial(ctx context.Context, o Opening) (Carrier, error)
}

// Indirect is what a Transport implements that reaches the server through a
// proxy. It may be given an Opening whose Remote has no address and whose Local
// is zero: the proxy may know the way where this host does not.
type Indirect interface {
	// Indirect gives the HOST:PORT of the proxy.
	Indirect() string
}

// A Listener serves one encapsulation at the server. It calls the handler that
// it was made with.
type Listener interface {
	// Serve runs until Close, or until the socket fails; after Close it returns
	// an error matching net.ErrClosed.
	Serve() error
	// Close ends Serve and all carriers of the listener.
	Close() error
}

// A Network is where sockets come from: the system's, or a laboratory's.
type Network interface {
	// DialUDP gives a connected UDP socket; its local address is a real one,
	// never the unspecified address.
	DialUDP(ctx context.Context, local netip.Addr, remote netip.AddrPort) (net.Conn, error)
	ListenUDP(ctx context.Context, local netip.AddrPort) (PacketConn, error)
	DialTCP(ctx context.Context, local netip.Addr, remote netip.AddrPort) (net.Conn, error)
	ListenTCP(ctx context.Context, local netip.AddrPort) (net.Listener, error)
}

// An EarlyNetwork is a Network whose TCP handshakes can carry data (TCP Fast
// Open, RFC 7413).
type EarlyNetwork interface {
	Network
	// DialTCPEarly is like DialTCP, but nothing leaves before the first Write, and as
	// much of what that writes as fits rides in the SYN. It may reach the server
	// more than once, so it has to be safe to replay. Where the system or the
	// network does not pass it, it goes out again behind the handshake.
	DialTCPEarly(ctx context.Context, local netip.Addr, remote netip.AddrPort) (EarlyConn, error)
}

// An EarlyConn is a TCP connection whose handshake begins with the first Write.
type EarlyConn interface {
	net.Conn
	// Connected waits for the end of the handshake. It is called after a Write;
	// Close ends the wait.
	Connected() error
}

// DialEarly dials early where n can, and otherwise as ever. Connected is called
// after the first Write and waits for the end of the handshake.
func DialEarly(ctx context.Context, n Network, local netip.Addr, remote netip.AddrPort) (conn net.Conn, connected func() error, err error) {
	if early, ok := n.(EarlyNetwork); ok {
		c, err := early.DialTCPEarly(ctx, local, remote)
		if err != nil {
			return nil, nil, err
		}
		return c, c.Connected, nil
	}
	conn, err = n.DialTCP(ctx, local, remote)
	return conn, func() error { return nil }, err
}

// A Handshaking connection was accepted before its handshake was over, with data
// that came in the SYN: until then its address is not proven.
type Handshaking interface {
	// Handshaking is false once the peer has answered.
	Handshaking() bool
}

// A RawNetwork is a Network that also has sockets of IP protocol 50 (RFC 4303).
// Their addresses have port 0, and what is read and written is without IP header.
type RawNetwork interface {
	Network
	// DialESP gives a socket that exchanges packets with one address; its own
	// address is a real one, never the unspecified address. An error matches
	// os.ErrPermission where the right to raw sockets is missing.
	DialESP(ctx context.Context, local, remote netip.Addr) (net.Conn, error)
	// ListenESP gives a socket for the packets of all others to local, which may
	// be the unspecified address of either family and stands for that family then.
	ListenESP(ctx context.Context, local netip.Addr) (PacketConn, error)
}

// A PacketConn is an unconnected UDP socket. *net.UDPConn is one.
type PacketConn interface {
	ReadFromUDPAddrPort(b []byte) (n int, addr netip.AddrPort, err error)
	WriteToUDPAddrPort(b []byte, addr netip.AddrPort) (int, error)
	LocalAddr() net.Addr
	Close() error
}
