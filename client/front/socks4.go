package front

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"time"
)

// SOCKS 4 has no RFC. It is NEC's memorandum of 1992, and version 4A its
// extension by names:
//
//	+----+----+----+----+----+----+----+----+---- - -+----+---- - -+----+
//	| VN | CD | DSTPORT |       DSTIP       | USERID | 00 |  NAME  | 00 |
//	+----+----+----+----+----+----+----+----+---- - -+----+---- - -+----+
//
// NAME is there if DSTIP is 0.0.0.x with x not zero. The reply has a zero, a
// code, and six bytes that mean nothing after CONNECT.
const (
	socks4Connect  = 1
	socks4Granted  = 90
	socks4Rejected = 91

	maxUserID = 255 // bytes
	maxName   = 255 // bytes
)

var errNotSOCKS4 = errors.New("not a SOCKS4 request")

// readSOCKS4 reads a CONNECT request of version 4 or 4A and gives its
// destination as host:port. The error matches errNotSOCKS4 or is the reader's.
func readSOCKS4(r *bufio.Reader) (string, error) {
	var head [8]byte
	for i := range head {
		b, err := r.ReadByte()
		if err != nil {
			return "", err
		}
		head[i] = b
	}
	if head[0] != 4 || head[1] != socks4Connect {
		return "", fmt.Errorf("%w: version %d, command %d", errNotSOCKS4, head[0], head[1])
	}
	if _, err := untilZero(r, maxUserID); err != nil {
		return "", err
	}
	port := binary.BigEndian.Uint16(head[2:])
	host := netip.AddrFrom4([4]byte(head[4:])).String()
	if head[4] == 0 && head[5] == 0 && head[6] == 0 {
		name, err := untilZero(r, maxName)
		if err != nil {
			return "", err
		}
		host = name
	}
	address := net.JoinHostPort(host, strconv.Itoa(int(port)))
	if h, _, err := net.SplitHostPort(address); err != nil || h != host || host == "" || port == 0 {
		return "", fmt.Errorf("%w: destination %q", errNotSOCKS4, address)
	}
	return address, nil
}

// untilZero reads a string of up to limit bytes that a zero byte ends.
func untilZero(r *bufio.Reader, limit int) (string, error) {
	var s []byte
	for {
		b, err := r.ReadByte()
		switch {
		case err != nil:
			return "", err
		case b == 0:
			return string(s), nil
		case len(s) == limit:
			return "", fmt.Errorf("%w: a text of more than %d bytes", errNotSOCKS4, limit)
		}
		s = append(s, b)
	}
}

// serveSOCKS4 serves one connection and closes it.
func (s *Server) serveSOCKS4(c *peeked) {
	defer c.Close()
	_ = c.SetReadDeadline(time.Now().Add(handshakeTimeout))
	br := bufio.NewReaderSize(c, 512)
	reply := func(code byte) error {
		_, err := c.Write([]byte{0, code, 0, 0, 0, 0, 0, 0})
		return err
	}
	address, err := readSOCKS4(br)
	if err == nil && s.c.Username != "" {
		err = errors.New("SOCKS4 has no password, and this proxy wants one")
	}
	if err != nil {
		s.log.LogAttrs(s.ctx, slog.LevelDebug, "SOCKS4 connection failed", slog.Any("err", err))
		_ = reply(socks4Rejected)
		return
	}
	_ = c.SetReadDeadline(noDeadline)
	ctx, stop := watch(s.ctx, c, br)
	remote, err := s.dial(ctx, "tcp", address)
	stop()
	if err != nil {
		s.log.LogAttrs(s.ctx, slog.LevelDebug, "dial failed", slog.String("target", address), slog.Any("err", err))
		_ = reply(socks4Rejected)
		return
	}
	if reply(socks4Granted) != nil {
		_ = remote.Close()
		return
	}
	join(c, buffered(br), remote)
}
