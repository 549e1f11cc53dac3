package front

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strconv"
	"time"

	"github.com/godwit-net/godwit/tunnel/relay"
	"github.com/things-go/go-socks5"
	"github.com/things-go/go-socks5/statute"
)

// newSOCKS makes the RFC 1928 side. Connections come by ServeConn.
func (s *Server) newSOCKS() *socks5.Server {
	options := []socks5.Option{
		socks5.WithResolver(noResolver{}),
		socks5.WithConnectHandle(s.connect),
		socks5.WithBindHandle(unsupported),
		socks5.WithAssociateHandle(s.associate),
	}
	if s.c.Username != "" {
		options = append(options, socks5.WithCredential(credentials{s}))
	}
	return socks5.NewServer(options...)
}

// noResolver leaves names as they are: the far end resolves them.
type noResolver struct{}

func (noResolver) Resolve(ctx context.Context, _ string) (context.Context, net.IP, error) {
	return ctx, nil, nil
}

type credentials struct{ s *Server }

func (c credentials) Valid(user, password, _ string) bool { return c.s.authorized(user, password) }

// noBind stands in replies for the address at the far end that a connection
// leaves from, which this end does not know.
var noBind = &net.TCPAddr{IP: net.IPv4zero}

func unsupported(_ context.Context, w io.Writer, r *socks5.Request) error {
	if err := socks5.SendReply(w, statute.RepCommandNotSupported, noBind); err != nil {
		return err
	}
	return fmt.Errorf("command %d is not supported", r.Command)
}

// target gives a request's address as host:port; names stay names.
func target(r *socks5.Request) (string, error) {
	host := r.RawDestAddr.FQDN
	if host == "" {
		if r.RawDestAddr.IP == nil {
			return "", errors.New("request with an empty name")
		}
		host = r.RawDestAddr.IP.String()
	}
	address := net.JoinHostPort(host, strconv.Itoa(r.RawDestAddr.Port))
	// A name may hold any bytes; one with a bracket makes an address that
	// nobody can take apart again.
	if h, _, err := net.SplitHostPort(address); err != nil || h != host {
		return "", fmt.Errorf("%q is not a name", host)
	}
	return address, nil
}

func (s *Server) connect(_ context.Context, w io.Writer, r *socks5.Request) error {
	c, ok := w.(*peeked)
	br, ok2 := r.Reader.(*bufio.Reader)
	if !ok || !ok2 {
		return errors.New("SOCKS request without a connection")
	}
	_ = c.SetReadDeadline(time.Time{})
	address, err := target(r)
	if err != nil {
		return errors.Join(err, socks5.SendReply(w, statute.RepServerFailure, noBind))
	}

	ctx, stop := watch(s.ctx, c, br)
	remote, err := s.dial(ctx, "tcp", address)
	stop()
	if err != nil {
		s.log.LogAttrs(s.ctx, slog.LevelDebug, "dial failed", slog.String("target", address), slog.Any("err", err))
		return socks5.SendReply(w, replyCode(err), noBind)
	}
	if err := socks5.SendReply(w, statute.RepSuccess, noBind); err != nil {
		_ = remote.Close()
		return err
	}
	early := buffered(br)
	c.then = func() { join(c, early, remote) }
	return nil
}

// buffered is what was read too far.
func buffered(br *bufio.Reader) []byte {
	early, _ := br.Peek(br.Buffered())
	return bytes.Clone(early)
}

// join relays between an application and a target; early is what was read too
// far from the application.
func join(c net.Conn, early []byte, remote net.Conn) {
	if len(early) > 0 {
		if _, err := remote.Write(early); err != nil {
			_ = c.Close()
			_ = remote.Close()
			return
		}
	}
	relay.Join(c, remote)
}

// watch gives a context that ends when the application goes away, so that its
// dial is not kept waiting for a network nobody needs. What it sends meanwhile
// stays in br. The stop function must be called before c is read again.
func watch(ctx context.Context, c net.Conn, br *bufio.Reader) (context.Context, func()) {
	ctx, cancel := context.WithCancel(ctx)
	if br.Buffered() > 0 {
		// It pipelines; that it may stop sending then means nothing.
		return ctx, cancel
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if _, err := br.Peek(1); err != nil {
			cancel()
		}
	}()
	return ctx, func() {
		// A deadline in the past wakes the reader; Peek forgets its error.
		_ = c.SetReadDeadline(time.Unix(1, 0))
		<-done
		cancel()
		_ = c.SetReadDeadline(time.Time{})
	}
}
