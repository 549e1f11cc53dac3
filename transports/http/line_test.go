package http

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"testing"

	"github.com/godwit-net/godwit/transports"
)

func newLine(limit int) *line {
	return &line{outLimit: limit, inLimit: limit, over: make(chan struct{})}
}

func frames(n uint64, payload string) block {
	return block{typ: blockFrames, number: n, payload: []byte(payload)}
}

func state(next uint64, hears uint32) block {
	return block{typ: blockState, number: next, payload: binary.BigEndian.AppendUint32(nil, hears)}
}

// TestReceive: segments are taken once and in order, whatever they come in; what a
// peer that keeps to the rules never sends ends the session.
func TestReceive(t *testing.T) {
	for name, tt := range map[string]struct {
		in   []block
		want string // what is ready, in order
		bad  bool   // the last block
	}{
		"in order":                    {in: []block{frames(0, "a"), frames(1, "b")}, want: "ab"},
		"out of order":                {in: []block{frames(2, "c"), frames(1, "b"), frames(0, "a")}, want: "abc"},
		"a gap":                       {in: []block{frames(0, "a"), frames(2, "c")}, want: "a"},
		"twice":                       {in: []block{frames(0, "a"), frames(0, "x"), frames(2, "c"), frames(2, "y"), frames(1, "b"), frames(1, "z")}, want: "abc"},
		"empty":                       {in: []block{frames(1, ""), frames(0, ""), frames(1, "b")}, want: "b"},
		"an unknown block":            {in: []block{{typ: 77, payload: []byte("?")}, frames(0, "a")}, want: "a"},
		"a number beyond the window":  {in: []block{frames(maxSegments, "x")}, bad: true},
		"the last number":             {in: []block{frames(1<<64-1, "x")}, bad: true},
		"too many bytes":              {in: []block{frames(1, "12345678"), frames(2, "12345678"), frames(3, "1")}, bad: true},
		"too many bytes, but known":   {in: []block{frames(1, "12345678"), frames(2, "12345678"), frames(2, "12345678")}},
		"what was never sent, taken":  {in: []block{state(1, 0)}, bad: true},
		"taken again and again":       {in: []block{state(0, 0), state(0, 0)}},
		"the end, and more behind it": {in: []block{{typ: blockEnd}, frames(0, "a")}, want: "a"},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLine(16)
			for i, b := range tt.in {
				err := l.receive(b)
				if bad := tt.bad && i == len(tt.in)-1; bad != errors.Is(err, transports.ErrProtocol) || !bad && err != nil {
					t.Fatalf("block %d: %v", i, err)
				}
			}
			if got := string(bytes.Join(l.ready, nil)); got != tt.want {
				t.Errorf("ready is %q, want %q", got, tt.want)
			}
		})
	}
}

// TestTake: a cursor gives each segment once, never one that is acknowledged, and
// from the oldest on after again.
func TestTake(t *testing.T) {
	l := newLine(100)
	for _, s := range []string{"aaaa", "bbbb", "cccc", "dddd"} {
		if err := l.WriteFrames([]byte(s)); err != nil {
			t.Fatal(err)
		}
	}
	numbers := func(limit int) (ns []uint64) {
		for r := bytes.NewReader(l.take(nil, &l.sent, limit)); ; {
			b, err := readBlock(r)
			if err == io.EOF {
				return ns
			}
			if want := "abcd"[b.number : b.number+1]; err != nil || !bytes.HasPrefix(b.payload, []byte(want)) {
				t.Fatalf("segment %d is %q, %v", b.number, b.payload, err)
			}
			ns = append(ns, b.number)
		}
	}
	want := func(got []uint64, want ...uint64) {
		t.Helper()
		if len(got) != len(want) {
			t.Fatalf("got %v, want %v", got, want)
		}
		for i := range got {
			if got[i] != want[i] {
				t.Fatalf("got %v, want %v", got, want)
			}
		}
	}
	want(numbers(1), 0) // one segment at least
	want(numbers(35), 1, 2)
	want(numbers(40), 3)
	want(numbers(40))
	if err := l.receive(state(2, 9)); err != nil || l.size != 8 || l.heard != 9 {
		t.Fatalf("%v, %d bytes left, heard %d", err, l.size, l.heard)
	}
	l.again()
	want(numbers(40), 2, 3)
	if err := l.receive(state(1, 0)); err != nil || l.base != 2 || l.heard != 9 {
		t.Fatalf("an older state: %v, base %d", err, l.base)
	}
	if err := l.receive(state(4, 0)); err != nil {
		t.Fatal(err)
	}
	l.again()
	want(numbers(40))
}

// FuzzBlocks: no body does harm, what is kept of it is bounded, and the blocks that
// it holds are read as the same when they are written again.
func FuzzBlocks(f *testing.F) {
	f.Add(appendBlock(appendBlock(nil, frames(1, "\x00\x04ab")), frames(0, "\x00\x05abc")))
	f.Add(appendBlock(appendBlock(nil, state(0, 7)), block{typ: blockEnd}))
	f.Add([]byte("\x00\xff\xff\xff\x00\x00\x00\x00\x00\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, body []byte) {
		var again []byte
		for r := bytes.NewReader(body); ; {
			b, err := readBlock(r)
			if err != nil {
				if err != io.EOF && !errors.Is(err, transports.ErrProtocol) {
					t.Fatal(err)
				}
				break
			}
			again = appendBlock(again, b)
		}
		if !bytes.HasPrefix(body, again) {
			t.Fatalf("%x was read as %x", body, again)
		}
		l := newLine(1024)
		if err := l.receiveAll(bytes.NewReader(body), nil); err != nil && !errors.Is(err, transports.ErrProtocol) {
			t.Fatal(err)
		}
		kept := 0
		for _, b := range l.ready {
			kept += len(b)
		}
		for _, b := range l.early {
			kept += len(b)
		}
		if kept > 1024 || kept != l.readySize+l.earlySize || len(l.ready)+len(l.early) > maxSegments {
			t.Fatalf("%d bytes are kept, in %d segments", kept, len(l.ready)+len(l.early))
		}
		if tk, ok := decodeTicket(string(body)); ok && tk.encode() != string(body) {
			t.Fatalf("ticket %q became %q", body, tk.encode())
		}
	})
}
