package stream

import (
	"errors"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/godwit-net/godwit/transports"
)

// idle is a stream on which nothing happens until it is closed.
type idle struct{ closed chan struct{} }

func (s idle) WriteFrames([]byte) error { return nil }
func (s idle) ReadFrames(*Reader) error { <-s.closed; return net.ErrClosed }
func (s idle) Close() error             { close(s.closed); return nil }

type lastWord struct{ err error }

func (l *lastWord) Receive(transports.Carrier, []transports.Packet) {}
func (l *lastWord) Closed(_ transports.Carrier, err error)          { l.err = err }

func TestProbation(t *testing.T) {
	for name, trust := range map[string]bool{"stranger": false, "friend": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := &lastWord{}
				c := New(transports.TCP, transports.Description{}, l)
				c.Probation()
				done := make(chan struct{})
				go func() { defer close(done); c.Run(idle{make(chan struct{})}) }()
				time.Sleep(ProbationTime - time.Nanosecond)
				synctest.Wait()
				if !c.Alive() {
					t.Fatal("ended early")
				}
				if trust {
					c.Trust()
				}
				time.Sleep(time.Hour)
				if c.Alive() != trust {
					t.Errorf("alive after an hour: %v", c.Alive())
				}
				c.Close()
				<-done
				if !trust && !errors.Is(l.err, ErrProbation) {
					t.Errorf("ended with %v", l.err)
				}
			})
		})
	}
}
