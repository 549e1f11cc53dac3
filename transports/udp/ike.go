package udp

import (
	"fmt"

	"github.com/godwit-net/godwit/transports"
)

// An ikeSocket gives datagrams the non-ESP marker when they come in and takes
// it from them when they go out.
type ikeSocket struct{ socket }

func (s ikeSocket) read(b []byte) (int, int, peer, error) {
	n, _, from, err := s.socket.read(b[transports.MarkerSize:])
	if err != nil {
		return 0, 0, peer{}, err
	}
	if n <= 1 {
		return 0, 0, from, nil // a NAT-keepalive, or nothing
	}
	clear(b[:transports.MarkerSize])
	n += transports.MarkerSize
	return n, n, from, nil
}

func (s ikeSocket) write(b []byte, segment int, to peer) error {
	if p, ok := transports.Classify(b); ok && p.Kind == transports.KindIKE {
		return s.socket.write(p.Data, segment-transports.MarkerSize, to)
	}
	return fmt.Errorf("this port is for IKE alone: %w", transports.ErrProtocol)
}

func (ikeSocket) joins() bool { return false }
