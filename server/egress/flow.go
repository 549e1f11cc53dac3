package egress

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/icmp"

	"github.com/godwit-net/godwit/clock"
)

const (
	// pingIdle ends the socket of pings that nobody answers any more.
	pingIdle = 30 * time.Second
	// echoHeader is type, code, checksum, identifier and sequence number of an
	// echo message: RFC 792, RFC 4443, Section 4.
	echoHeader = 8
)

// A flow is a socket that stands for a client's.
type flow struct {
	r      *Router
	key    flowKey
	socket net.PacketConn
	used   atomic.Int64 // by package clock

	// raw is for pings by a socket that gets all of this host's: they are told
	// apart by id. Other sockets for pings get an identifier from the system.
	raw bool
	id  uint16

	mu sync.Mutex
	// peers lets in what comes from these, as if it came from where the client
	// sent to. Ports do not count, but for a resolver that stands for another.
	peers map[netip.Addr]netip.AddrPort
}

func (f *flow) open() (err error) {
	if f.key.ping {
		return f.openPing()
	}
	network := "udp4"
	if f.key.v6 {
		network = "udp6"
	}
	f.socket, err = net.ListenPacket(network, ":0")
	return err
}

// openPing tries a socket that needs no rights where the system allows it to
// this group (net.ipv4.ping_group_range), and then one that needs them.
func (f *flow) openPing() (err error) {
	datagram, raw, any := "udp4", "ip4:icmp", "0.0.0.0"
	if f.key.v6 {
		datagram, raw, any = "udp6", "ip6:ipv6-icmp", "::"
	}
	if f.socket, err = icmp.ListenPacket(datagram, any); err == nil {
		return nil
	}
	f.raw = true
	var id [2]byte
	rand.Read(id[:])
	f.id = binary.BigEndian.Uint16(id[:])
	f.socket, err = icmp.ListenPacket(raw, any)
	return err
}

// allow lets in what comes from target, as if it came from shown.
func (f *flow) allow(target, shown netip.AddrPort) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.peers == nil || len(f.peers) >= maxPeers {
		f.peers = make(map[netip.Addr]netip.AddrPort)
	}
	if target == shown {
		shown = netip.AddrPortFrom(shown.Addr(), 0)
	}
	f.peers[target.Addr()] = shown
}

// shown gives the address that an answer from source has for the client.
func (f *flow) shown(source netip.AddrPort) (netip.AddrPort, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	as, ok := f.peers[source.Addr()]
	if as.Port() == 0 {
		return source, ok
	}
	return as, ok
}

func (f *flow) idle() time.Duration {
	if f.key.ping {
		return pingIdle
	}
	return mappingIdle
}

// run brings answers to the client until nothing was sent or came for a while.
func (f *flow) run() {
	defer func() {
		_ = f.socket.Close()
		f.r.mu.Lock()
		f.r.remove(f)
		f.r.mu.Unlock()
	}()
	b := make([]byte, maxDatagram)
	failed := 0
	for {
		_ = f.socket.SetReadDeadline(time.Now().Add(f.idle() - clock.Since(f.used.Load())))
		n, from, err := f.socket.ReadFrom(b)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			if clock.Since(f.used.Load()) >= f.idle() {
				return
			}
			continue
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil:
			// An ICMP error about a target is no end of the socket; but one
			// that stays is.
			if failed++; failed > maxPeers {
				return
			}
			continue
		}
		failed = 0
		if err := f.deliver(b[:n], from); err != nil && f.r.ctx.Err() == nil {
			f.r.Logger.LogAttrs(f.r.ctx, slog.LevelDebug, "answer not sent", slog.Any("client", f.key.client), slog.Any("err", err))
		}
	}
}

// deliver sends one answer to the client.
func (f *flow) deliver(b []byte, from net.Addr) error {
	var source netip.AddrPort
	switch a := from.(type) {
	case *net.UDPAddr:
		source = a.AddrPort()
	case *net.IPAddr:
		ip, _ := netip.AddrFromSlice(a.IP)
		source = netip.AddrPortFrom(ip, 0)
	}
	source = netip.AddrPortFrom(source.Addr().Unmap().WithZone(""), source.Port())
	shown, ok := f.shown(source)
	if !ok {
		return nil // a stranger
	}
	if !f.key.ping {
		f.used.Store(clock.Now())
		return f.r.SendUDP(shown, f.key.client, b)
	}
	if len(b) < echoHeader || b[0] != echoReply(source.Addr()) || f.raw && binary.BigEndian.Uint16(b[4:]) != f.id {
		return nil // about somebody else's ping
	}
	binary.BigEndian.PutUint16(b[4:], f.key.client.Port())
	return f.r.SendICMP(shown.Addr(), f.key.client.Addr(), b)
}

// echoReply is the ICMP type of a reply from or to an address.
func echoReply(a netip.Addr) byte {
	if a.Is6() {
		return 129 // RFC 4443, Section 4.2
	}
	return 0 // RFC 792
}

// sendEcho sends an echo request with an identifier of ours.
func (f *flow) sendEcho(to netip.Addr, message []byte) error {
	if f.raw {
		binary.BigEndian.PutUint16(message[4:], f.id)
	}
	// The system makes the checksum of ICMPv6, and that of a socket without
	// rights; a raw one of ICMP needs ours.
	if to.Is4() {
		message[2], message[3] = 0, 0
		binary.BigEndian.PutUint16(message[2:], ^onesSum(message))
	}
	var at net.Addr = &net.UDPAddr{IP: to.AsSlice()}
	if f.raw {
		at = &net.IPAddr{IP: to.AsSlice()}
	}
	_, err := f.socket.WriteTo(message, at)
	return err
}

// onesSum is the sum in ones' complement of RFC 1071.
func onesSum(b []byte) uint16 {
	var sum uint32
	for ; len(b) >= 2; b = b[2:] {
		sum += uint32(binary.BigEndian.Uint16(b))
	}
	if len(b) == 1 {
		sum += uint32(b[0]) << 8
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return uint16(sum)
}
