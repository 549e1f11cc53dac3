package client

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/godwit-net/godwit/client/front"
	"github.com/godwit-net/godwit/ipsec/ike"
	"github.com/godwit-net/godwit/tunnel"
)

// A resolver asks name servers through the tunnel (RFC 1035). Nothing of the
// host's own name resolution is used: a name that goes into the tunnel shall
// not be told to anybody outside it.
type resolver struct {
	stack   *tunnel.Stack
	servers []netip.Addr                          // in the gateway's order
	v4, v6  bool                                  // which addresses are of use
	reach   atomic.Pointer[[]ike.TrafficSelector] // what the gateway lets through
}

const (
	dnsPort = 53
	// dnsWait is how long a server may take; all servers are asked dnsRounds times.
	dnsWait   = 2 * time.Second
	dnsRounds = 3
	// dnsSize is the largest answer over UDP, as advertised (RFC 6891); more
	// comes over TCP.
	dnsSize      = 1232
	maxAddresses = 16
	// dialHeadStart is how long an address of a name is tried before the next
	// one is.
	dialHeadStart = 5 * time.Second
)

// lookup finds the addresses of a name, IPv4 first. The error matches
// front.ErrHostUnreachable or front.ErrTimeout.
func (r *resolver) lookup(ctx context.Context, host string) ([]netip.Addr, error) {
	if len(r.servers) == 0 {
		return nil, fmt.Errorf("%w: the gateway named no name server: use addresses", front.ErrHostUnreachable)
	}
	name, err := dnsmessage.NewName(strings.TrimSuffix(host, ".") + ".")
	if err != nil {
		return nil, fmt.Errorf("%w: %q is not a name: %w", front.ErrHostUnreachable, host, err)
	}
	type answer struct {
		addrs []netip.Addr
		err   error
	}
	var types []dnsmessage.Type
	if r.v4 {
		types = append(types, dnsmessage.TypeA)
	}
	if r.v6 {
		types = append(types, dnsmessage.TypeAAAA)
	}
	answers := make([]answer, len(types))
	done := make(chan struct{}, len(types))
	for i, t := range types {
		go func() {
			answers[i].addrs, answers[i].err = r.ask(ctx, dnsmessage.Question{Name: name, Type: t, Class: dnsmessage.ClassINET})
			done <- struct{}{}
		}()
	}
	for range types {
		<-done
	}
	var all []netip.Addr
	for _, a := range answers {
		all = append(all, a.addrs...)
		if err == nil {
			err = a.err
		}
	}
	switch {
	case len(all) > 0:
		return all, nil
	case err != nil:
		return nil, err
	}
	return nil, fmt.Errorf("%w: %s has no address", front.ErrHostUnreachable, host)
}

// ask asks the servers in turn until one answers.
func (r *resolver) ask(ctx context.Context, q dnsmessage.Question) ([]netip.Addr, error) {
	var last error
	for range dnsRounds {
		for _, server := range r.servers {
			addrs, err := r.askServer(ctx, server, q)
			if err == nil || errors.Is(err, front.ErrHostUnreachable) {
				return addrs, err
			}
			if last = err; ctx.Err() != nil {
				return nil, fmt.Errorf("%w: %w", front.ErrTimeout, ctx.Err())
			}
		}
	}
	return nil, fmt.Errorf("%w: the gateway's name servers do not answer: %w", front.ErrTimeout, last)
}

func (r *resolver) askServer(ctx context.Context, server netip.Addr, q dnsmessage.Question) ([]netip.Addr, error) {
	ctx, cancel := context.WithTimeout(ctx, dnsWait)
	defer cancel()
	var id [2]byte
	rand.Read(id[:])
	query, err := newQuery(binary.BigEndian.Uint16(id[:]), q)
	if err != nil {
		return nil, err
	}
	at := netip.AddrPortFrom(server, dnsPort)
	conn, err := r.stack.DialUDP(at)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })()
	if _, err := conn.Write(query); err != nil {
		return nil, err
	}
	b := make([]byte, 65535)
	for {
		n, err := conn.Read(b)
		if err != nil {
			return nil, err
		}
		addrs, truncated, err := readAnswer(b[:n], binary.BigEndian.Uint16(id[:]), q)
		switch {
		case errors.Is(err, errNotOurs):
			continue // somebody guesses, or it is late
		case truncated:
			return r.askStream(ctx, at, query, binary.BigEndian.Uint16(id[:]), q)
		}
		return addrs, err
	}
}

// askStream asks over TCP: a length of two bytes before each message (RFC 7766,
// Section 8).
func (r *resolver) askStream(ctx context.Context, at netip.AddrPort, query []byte, id uint16, q dnsmessage.Question) ([]netip.Addr, error) {
	conn, err := r.stack.DialTCP(ctx, at)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })()
	if _, err := conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(query))), query...)); err != nil {
		return nil, err
	}
	var size [2]byte
	if _, err := io.ReadFull(conn, size[:]); err != nil {
		return nil, err
	}
	b := make([]byte, binary.BigEndian.Uint16(size[:]))
	if _, err := io.ReadFull(conn, b); err != nil {
		return nil, err
	}
	addrs, _, err := readAnswer(b, id, q)
	return addrs, err
}

func newQuery(id uint16, q dnsmessage.Question) ([]byte, error) {
	b := dnsmessage.NewBuilder(nil, dnsmessage.Header{ID: id, RecursionDesired: true})
	b.EnableCompression()
	if err := b.StartQuestions(); err != nil {
		return nil, err
	}
	if err := b.Question(q); err != nil {
		return nil, err
	}
	if err := b.StartAdditionals(); err != nil {
		return nil, err
	}
	var h dnsmessage.ResourceHeader
	if err := h.SetEDNS0(dnsSize, dnsmessage.RCodeSuccess, false); err != nil {
		return nil, err
	}
	if err := b.OPTResource(h, dnsmessage.OPTResource{}); err != nil {
		return nil, err
	}
	return b.Finish()
}

var errNotOurs = errors.New("not an answer to this question")

// readAnswer reads the addresses of an answer to the question with this ID. A
// server follows aliases itself, as recursion is asked for; so records of any
// name count that have the type asked for.
func readAnswer(b []byte, id uint16, q dnsmessage.Question) (addrs []netip.Addr, truncated bool, err error) {
	var p dnsmessage.Parser
	h, err := p.Start(b)
	if err != nil || !h.Response || h.ID != id {
		return nil, false, errNotOurs
	}
	asked, err := p.Question()
	if err != nil || asked.Type != q.Type || asked.Class != q.Class || !strings.EqualFold(asked.Name.String(), q.Name.String()) {
		return nil, false, errNotOurs
	}
	if err := p.SkipAllQuestions(); err != nil {
		return nil, false, errNotOurs
	}
	switch h.RCode {
	case dnsmessage.RCodeSuccess:
	case dnsmessage.RCodeNameError:
		return nil, false, fmt.Errorf("%w: no such name", front.ErrHostUnreachable)
	default:
		return nil, false, fmt.Errorf("the name server answers %v", h.RCode)
	}
	if h.Truncated {
		return nil, true, nil
	}
	for len(addrs) < maxAddresses {
		rh, err := p.AnswerHeader()
		if err != nil {
			break // the end, or damage behind what was good
		}
		switch {
		case rh.Type == dnsmessage.TypeA && q.Type == rh.Type:
			a, err := p.AResource()
			if err != nil {
				return addrs, false, nil
			}
			addrs = append(addrs, netip.AddrFrom4(a.A))
		case rh.Type == dnsmessage.TypeAAAA && q.Type == rh.Type:
			a, err := p.AAAAResource()
			if err != nil {
				return addrs, false, nil
			}
			addrs = append(addrs, netip.AddrFrom16(a.AAAA))
		default:
			if err := p.SkipAnswer(); err != nil {
				return addrs, false, nil
			}
		}
	}
	return addrs, false, nil
}

// dial connects to host:port straight from the client's stack. The addresses
// of a name are tried one after the other.
func (in *inner) dial(ctx context.Context, network, address string) (net.Conn, error) {
	host, service, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	port, err := strconv.ParseUint(service, 10, 16)
	if err != nil || port == 0 {
		return nil, fmt.Errorf("port %q is not between 1 and 65535", service)
	}
	var addrs []netip.Addr
	if a, err := netip.ParseAddr(host); err == nil {
		addrs = []netip.Addr{a.Unmap()}
	} else if addrs, err = in.resolver.lookup(ctx, host); err != nil {
		return nil, err
	}
	err = fmt.Errorf("%w: no address of a family that the gateway gave us", front.ErrNetworkUnreachable)
	for i, a := range addrs {
		if a.Is4() && (!in.resolver.v4 || network == "tcp6") || a.Is6() && (!in.resolver.v6 || network == "tcp4") {
			continue
		}
		if reach := in.resolver.reach.Load(); reach != nil && !covers(*reach, a) {
			err = fmt.Errorf("%w: the gateway lets nothing through to %v", front.ErrNotAllowed, a)
			continue
		}
		actx, cancel := ctx, context.CancelFunc(func() {})
		if i < len(addrs)-1 {
			actx, cancel = context.WithTimeout(ctx, dialHeadStart)
		}
		var conn net.Conn
		conn, err = in.stack.DialTCP(actx, netip.AddrPortFrom(a, uint16(port)))
		cancel()
		if err == nil {
			return conn, nil
		}
		if ctx.Err() != nil {
			break
		}
	}
	return nil, reason(err)
}

// reason turns an error of the stack into the one of package front that says
// the same.
func reason(err error) error {
	for _, r := range []struct{ from, to error }{
		{syscall.ECONNREFUSED, front.ErrRefused},
		{syscall.EHOSTUNREACH, front.ErrHostUnreachable},
		{syscall.ENETUNREACH, front.ErrNetworkUnreachable},
		{syscall.ETIMEDOUT, front.ErrTimeout},
	} {
		if errors.Is(err, r.from) {
			return fmt.Errorf("%w: %w", r.to, err)
		}
	}
	return err
}
