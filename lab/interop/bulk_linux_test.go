//go:build netns

package interop

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"hash"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/godwit-net/godwit/lab/netns"
)

type dialFunc func(ctx context.Context, network, address string) (net.Conn, error)

// bulkAddress is where the target takes and gives data without end.
var bulkAddress = net.JoinHostPort(netns.TargetIPv4.String(), "9")

// A bulk stream is blocks of this size, each with a byte 1 before it; a byte 0
// ends it, and the sum of all blocks follows.
const bulkBlock = 1 << 20

// sendBlocks sends at least size bytes and goes on until enough.
func sendBlocks(w io.Writer, size int64, enough func() bool) (total int64, err error) {
	sum := sha256.New()
	b := make([]byte, bulkBlock)
	rand.Read(b)
	for total < size || !enough() {
		b[int(total/bulkBlock)%bulkBlock]++
		sum.Write(b)
		if _, err := w.Write(append([]byte{1}, b...)); err != nil {
			return total, err
		}
		total += bulkBlock
	}
	_, err = w.Write(append([]byte{0}, sum.Sum(nil)...))
	return total, err
}

// receiveBlocks reads what sendBlocks sent and compares the sums.
func receiveBlocks(r io.Reader) (total int64, err error) {
	var sum hash.Hash = sha256.New()
	b := make([]byte, bulkBlock)
	for {
		if _, err := io.ReadFull(r, b[:1]); err != nil {
			return total, err
		}
		if b[0] == 0 {
			break
		}
		n, err := io.ReadFull(r, b)
		sum.Write(b[:n])
		if total += int64(n); err != nil {
			return total, err
		}
	}
	if _, err := io.ReadFull(r, b[:sha256.Size]); err != nil {
		return total, err
	}
	if !bytes.Equal(b[:sha256.Size], sum.Sum(nil)) {
		return total, errors.New("the sums differ")
	}
	return total, nil
}

// serveBulk is the target's end. The client's first byte says which way: with
// 'u' it sends, and gets a byte when all is well; with 'd' it receives, and says
// by another byte when it is enough.
func serveBulk(c net.Conn) {
	way := make([]byte, 1)
	if _, err := io.ReadFull(c, way); err != nil {
		return
	}
	if way[0] == 'u' {
		if _, err := receiveBlocks(c); err == nil {
			_, _ = c.Write([]byte{1})
		}
		_, _ = io.Copy(io.Discard, c)
		return
	}
	stop := make(chan struct{})
	go func() {
		defer close(stop)
		_, _ = io.ReadFull(c, way)
	}()
	_, _ = sendBlocks(c, 0, func() bool {
		select {
		case <-stop:
			return true
		default:
			return false
		}
	})
	_, _ = io.Copy(io.Discard, c)
}

// bulk sends and receives at least size bytes at the same time, by a connection
// for each way, goes on until enough gives true, and compares sums at the ends.
func bulk(t *testing.T, ctx context.Context, dial dialFunc, size int64, enough func() bool) {
	t.Helper()
	var up, down int64
	var both sync.WaitGroup
	open := func(way byte) net.Conn {
		conn, err := dial(ctx, "tcp", bulkAddress)
		if err != nil {
			t.Errorf("through the tunnel: %v", err)
			return nil
		}
		if _, err := conn.Write([]byte{way}); err != nil {
			t.Error(err)
		}
		context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
		return conn
	}
	a, b := open('u'), open('d')
	if a == nil || b == nil {
		return
	}
	defer a.Close()
	defer b.Close()
	both.Go(func() {
		var err error
		if up, err = sendBlocks(a, size, enough); err == nil {
			_, err = io.ReadFull(a, make([]byte, 1))
		}
		if err != nil {
			t.Errorf("up, after %d bytes: %v", up, err)
		}
	})
	both.Go(func() {
		var err error
		r := &stopper{conn: b, size: size, enough: enough}
		if down, err = receiveBlocks(r); err != nil {
			t.Errorf("down, after %d bytes: %v", down, err)
		}
	})
	both.Wait()
	t.Logf("%d MB up, %d MB down", up/1000/1000, down/1000/1000)
}

// A stopper says by one byte when enough has been read.
type stopper struct {
	conn   net.Conn
	size   int64
	enough func() bool
	got    int64
	next   int64 // when to ask again
	done   bool
}

func (s *stopper) Read(b []byte) (int, error) {
	n, err := s.conn.Read(b)
	s.got += int64(n)
	if !s.done && s.got >= s.size && s.got >= s.next {
		s.next = s.got + bulkBlock
		if s.enough() {
			s.done = true
			if _, werr := s.conn.Write([]byte{0}); werr != nil {
				err = errors.Join(err, werr)
			}
		}
	}
	return n, err
}
