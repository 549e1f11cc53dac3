package tunnel

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// An orderTest puts segments named by a letter and their numbers into an order.
type orderTest struct {
	order
	mu  sync.Mutex
	got []string
}

func newOrderTest() *orderTest {
	o := new(orderTest)
	o.deliver = func(_ tcpip.NetworkProtocolNumber, pb *stack.PacketBuffer) {
		o.mu.Lock()
		o.got = append(o.got, string(pb.Data().AsRange().ToSlice()))
		o.mu.Unlock()
		pb.DecRef()
	}
	return o
}

func (o *orderTest) put(name string, port uint32, seq, end uint32, flags byte, hold time.Duration) {
	s := tcpSegment{flow: flow{ports: port}, seq: seq, flags: flags | flagACK}
	pb := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithData([]byte(name))})
	o.take(&s, end, header.IPv4ProtocolNumber, pb, hold)
}

func (o *orderTest) want(t *testing.T, when string, names ...string) {
	t.Helper()
	o.mu.Lock()
	defer o.mu.Unlock()
	if !slices.Equal(o.got, names) {
		t.Errorf("%s: %v, want %v", when, o.got, names)
	}
	o.got = nil
}

func TestOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const hold = time.Second
		o := newOrderTest()
		defer o.close()
		o.put("a", 1, 0xfffffff0, 0, 0, 0)
		o.put("c", 1, 10, 20, 0, 0)
		o.want(t, "nothing is lost below: TCP sees the gap", "a", "c")
		o.put("e", 1, 30, 40, 0, hold)
		o.put("f", 1, 40, 50, 0, hold)
		o.put("ack", 1, 40, 40, 0, hold)
		o.put("x", 2, 0, 10, 0, hold)
		o.want(t, "behind a gap they wait, others do not", "ack", "x")
		o.put("d", 1, 20, 30, 0, 0)
		o.want(t, "the gap closes", "d", "e", "f")

		o.put("j", 1, 80, 90, flagFIN, hold)
		o.put("h", 1, 60, 70, 0, hold)
		time.Sleep(hold * 2 / 3)
		o.put("g", 1, 50, 60, 0, hold)
		o.want(t, "one of two gaps closes", "g", "h")
		time.Sleep(hold * 2 / 3)
		o.want(t, "the other has its own time")
		time.Sleep(hold)
		o.want(t, "which ends", "j")
		o.put("i", 1, 70, 80, 0, 0)
		o.put("k", 1, 90, 100, 0, 0)
		o.want(t, "what comes later still goes in", "i", "k")

		o.put("m", 1, 110, 120, 0, hold)
		o.put("rst", 1, 100, 100, flagRST, hold)
		o.want(t, "a reset waits for nothing", "m", "rst")
		o.put("syn", 1, 5000, 5001, flagSYN, hold)
		o.put("n", 1, 5001, 5010, 0, hold)
		o.want(t, "a new connection begins anew", "syn", "n")
		o.put("p", 1, 7000, 7010, 0, hold)
	})
}

// Whatever order segments come in, they leave in order if none is missing for
// longer than the hold, and each once.
func TestOrderOfAnything(t *testing.T) {
	for seed := range uint64(50) {
		synctest.Test(t, func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 1))
			o := newOrderTest()
			defer o.close()
			const n = 200
			at := make([]int, n)
			for i := range at {
				at[i] = i + r.IntN(30)
			}
			at[0] = -1 // where the connection begins is seen first
			order := make([]int, n)
			for i := range order {
				order[i] = i
			}
			slices.SortStableFunc(order, func(a, b int) int { return at[a] - at[b] })
			begin := r.Uint32()
			var want []string
			for i := range n {
				want = append(want, fmt.Sprint(i))
			}
			for _, i := range order {
				o.put(fmt.Sprint(i), 9, begin+uint32(i), begin+uint32(i)+1, 0, time.Second)
			}
			o.want(t, fmt.Sprint("seed ", seed), want...)
		})
	}
}

// What waits in a connection is bounded.
func TestOrderIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOrderTest()
		defer o.close()
		o.put("a", 1, 0, 1, 0, 0)
		big := string(make([]byte, 60<<10))
		for i := range uint32(heldBytes/len(big) + 2) {
			o.put(big, 1, 10+i, 11+i, 0, time.Hour)
		}
		if len(o.got) < heldBytes/len(big) {
			t.Errorf("%d segments have come out", len(o.got))
		}
	})
}

// A segment offers no larger a window than its way takes, in its own scale.
func TestOrderClampsWindows(t *testing.T) {
	o := newOrderTest()
	defer o.close()
	segment := func(flags byte, window uint16, options ...byte) (*tcpSegment, []byte) {
		tcp := make([]byte, tcpHeader, tcpHeader+len(options))
		tcp[tcpOffset] = byte((tcpHeader+len(options))/4) << 4
		binary.BigEndian.PutUint16(tcp[tcpWindow:], window)
		return &tcpSegment{flow: flow{ports: 7}, flags: flags | flagACK}, append(tcp, options...)
	}
	offered := func(window uint16, most int) int {
		s, tcp := segment(0, window)
		o.clamp(s, tcp, most)
		return int(binary.BigEndian.Uint16(tcp[tcpWindow:]))
	}
	if got := offered(1000, 4096); got != 1000 {
		t.Errorf("a connection whose beginning was not seen: %d", got)
	}
	syn, tcp := segment(flagSYN, 1000, optionNop, optionNop, optionNop, 8, 2, optionWindowScale, 3, 7, 0)
	o.clamp(syn, tcp, 10)
	if got := binary.BigEndian.Uint16(tcp[tcpWindow:]); got != 1000 || syn.scale != 7 {
		t.Errorf("a SYN's window is not scaled: %d, scale %d", got, syn.scale)
	}
	pb := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithData([]byte("syn"))})
	o.take(syn, 1, header.IPv4ProtocolNumber, pb, 0)
	for _, tt := range []struct {
		window     uint16
		most, want int
	}{{1000, 0, 1000}, {1000, 1 << 20, 1000}, {1000, 64 << 10, 512}, {1000, 5, 1}, {0, 64 << 10, 0}} {
		if got := offered(tt.window, tt.most); got != tt.want {
			t.Errorf("%d with %d at most: %d, want %d", tt.window, tt.most, got, tt.want)
		}
	}
	for _, options := range [][]byte{nil, {optionEnd}, {optionWindowScale}, {optionWindowScale, 3}, {optionWindowScale, 0}, {9, 200}, {optionNop, optionWindowScale, 2}} {
		if got := scaleOption(append(make([]byte, tcpHeader), options...)); got != 0 {
			t.Errorf("options % x: scale %d", options, got)
		}
	}
}
