package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/godwit-net/godwit/bench/load"
	"github.com/godwit-net/godwit/bench/proc"
	"github.com/godwit-net/godwit/bench/report"
	"github.com/godwit-net/godwit/client/warm"
	"github.com/godwit-net/godwit/config"
	"github.com/godwit-net/godwit/lab/netns"
)

// A group is tests that share one start of a peer. Those about memory have a
// fresh one each: a heap that has grown for a download hides what a stream takes.
type group struct {
	tests []report.Test
	run   func(b *bench, ctx context.Context, p *peer, tests []report.Test)
}

var groups = []group{
	{[]report.Test{report.Down, report.Up, report.Down8, report.Up8, report.Ping, report.Busy}, (*bench).traffic},
	{[]report.Test{report.Streams}, (*bench).streams},
	{[]report.Test{report.First}, (*bench).first},
	{[]report.Test{report.Clients}, (*bench).clients},
	{[]report.Test{report.Lossy}, (*bench).lossyLink},
	{[]report.Test{report.Fair}, (*bench).fair},
}

// of gives those tests of the group that are wanted.
func (g group) of(wanted []report.Test) (tests []report.Test) {
	for _, t := range g.tests {
		if slices.Contains(wanted, t) {
			tests = append(tests, t)
		}
	}
	return tests
}

// fail records that a peer did not even start.
func (b *bench) fail(p *peer, tests []report.Test, err error) {
	for _, t := range tests {
		b.add(p, t, nil, "", err)
	}
}

// tag is what profiles of this start are called after.
func (b *bench) tag(of string) string { return of + "-" + strconv.Itoa(b.round) }

// traffic runs the tests that move bytes.
func (b *bench) traffic(ctx context.Context, p *peer, tests []report.Test) {
	s, err := open(ctx, b.fast, p, b.in, b.profiles, b.tag("traffic"))
	if err != nil {
		b.fail(p, tests, err)
		return
	}
	defer s.close()
	// A little of both first, so that no test pays for the beginning.
	var t load.Transfer
	for _, do := range []string{"down", "up"} {
		if err := s.load(ctx, &t, "-do", do, "-bytes", "8000000", "-limit", "10s"); err != nil {
			b.fail(p, tests, fmt.Errorf("warm up: %w%s", err, s.said()))
			return
		}
	}
	for _, test := range tests {
		if ctx.Err() != nil {
			return
		}
		var values map[report.Metric]float64
		var note string
		switch test {
		case report.Down:
			values, note, err = b.bulk(ctx, s, "down", 1)
		case report.Up:
			values, note, err = b.bulk(ctx, s, "up", 1)
		case report.Down8:
			values, note, err = b.bulk(ctx, s, "down", 8)
		case report.Up8:
			values, note, err = b.bulk(ctx, s, "up", 8)
		case report.Ping:
			values, err = b.ping(ctx, s)
		case report.Busy:
			values, err = b.busy(ctx, s)
		}
		if err != nil {
			err = fmt.Errorf("%w%s", err, s.said())
		}
		b.add(p, test, values, note, err)
	}
}

// bulk moves bytes and counts what that costs both sides of the peer.
func (b *bench) bulk(ctx context.Context, s *site, do string, streams int) (map[report.Metric]float64, string, error) {
	clients, servers := pids(s.clients), pids(s.servers)
	all := append(slices.Clone(clients), servers...)
	if err := proc.Self.ResetPeak(all...); err != nil {
		return nil, "", fmt.Errorf("reset the peak of memory: %w", err)
	}
	clientBefore, err1 := proc.Self.CPU(clients...)
	serverBefore, err2 := proc.Self.CPU(servers...)
	var t load.Transfer
	err3 := s.load(ctx, &t, "-do", do, "-streams", strconv.Itoa(streams),
		"-bytes", strconv.FormatUint(b.bytes, 10), "-limit", b.limit.String())
	clientAfter, err4 := proc.Self.CPU(clients...)
	serverAfter, err5 := proc.Self.CPU(servers...)
	clientMemory, err6 := proc.Self.Memory(clients...)
	serverMemory, err7 := proc.Self.Memory(servers...)
	if err := errors.Join(err1, err2, err3, err4, err5, err6, err7); err != nil {
		return nil, "", err
	}
	if t.Bytes == 0 || t.Seconds <= 0 {
		return nil, "", errors.New("nothing came in time")
	}
	gb := float64(t.Bytes) / 1e9
	client, server := (clientAfter-clientBefore).Seconds()/gb, (serverAfter-serverBefore).Seconds()/gb
	note := ""
	if t.Cut {
		note = fmt.Sprintf("cut after %s and %d MB", b.limit, t.Bytes/1e6)
	}
	return map[report.Metric]float64{
		report.Rate:      float64(t.Bytes) / 1e6 / t.Seconds,
		report.ClientCPU: client, report.ServerCPU: server, report.CPU: client + server,
		report.ClientPeak: float64(clientMemory.Peak) / 1e6, report.ServerPeak: float64(serverMemory.Peak) / 1e6,
	}, note, nil
}

// How long ping-pongs run, and how far apart they start where they are to
// measure latency: a bulk transfer's processor time should not go to them.
const (
	pingTime  = 3 * time.Second
	busyTime  = 5 * time.Second
	busyPace  = 5 * time.Millisecond
	busyAhead = time.Second // for the transfer to get up to speed
)

func (b *bench) ping(ctx context.Context, s *site) (map[report.Metric]float64, error) {
	var p load.Pings
	if err := s.load(ctx, &p, "-do", "ping", "-limit", pingTime.String()); err != nil {
		return nil, err
	}
	return map[report.Metric]float64{report.RoundTrips: float64(p.Count) / p.Seconds}, nil
}

func (b *bench) busy(ctx context.Context, s *site) (map[report.Metric]float64, error) {
	ping := func(p *load.Pings) error {
		return s.load(ctx, p, "-do", "ping", "-pace", busyPace.String(), "-limit", busyTime.String())
	}
	var idle, busy load.Pings
	if err := ping(&idle); err != nil {
		return nil, err
	}
	var t load.Transfer
	ended := make(chan error, 1)
	go func() {
		ended <- s.load(ctx, &t, "-do", "down", "-bytes", "1000000000000", "-limit", (busyTime + busyAhead + time.Second).String())
	}()
	err := sleep(ctx, busyAhead)
	if err == nil {
		err = ping(&busy)
	}
	if err := errors.Join(err, <-ended); err != nil {
		return nil, err
	}
	return map[report.Metric]float64{
		report.IdleP50: idle.P50, report.IdleP99: idle.P99, report.BusyP50: busy.P50, report.BusyP99: busy.P99,
		report.Rate: float64(t.Bytes) / 1e6 / t.Seconds,
	}, nil
}

// streams measures what idle streams add to the resident memory of both sides.
func (b *bench) streams(ctx context.Context, p *peer, tests []report.Test) {
	values, err := b.idleStreamMemory(ctx, p)
	b.add(p, report.Streams, values, "", err)
}

func (b *bench) idleStreamMemory(ctx context.Context, p *peer) (map[report.Metric]float64, error) {
	s, err := open(ctx, b.fast, p, b.in, b.profiles, b.tag("streams"))
	if err != nil {
		return nil, err
	}
	defer s.close()
	clients, servers := pids(s.clients), pids(s.servers)
	client0, err1 := settled(ctx, clients)
	server0, err2 := settled(ctx, servers)
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	hold := s.start(s.client, "hold", s.self, loadWord, "-do", "hold", "-streams", strconv.Itoa(b.idleStreams), "-limit", "2m")
	defer hold.Kill()
	if err := expect(ctx, hold.Stdout, "ready"); err != nil {
		return nil, fmt.Errorf("open %d streams: %w: %s%s", b.idleStreams, err, hold.Stderr, s.said())
	}
	client1, err1 := settled(ctx, clients)
	server1, err2 := settled(ctx, servers)
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	each := func(after, before int64) float64 { return float64(after-before) / 1024 / float64(b.idleStreams) }
	return map[report.Metric]float64{
		report.ClientStream: each(client1, client0), report.ServerStream: each(server1, server0),
	}, nil
}

// settled gives the resident memory of trees of processes once it has stopped
// changing much, or after some seconds.
func settled(ctx context.Context, roots []int) (int64, error) {
	var before int64 = -1
	for range 10 {
		if err := sleep(ctx, 500*time.Millisecond); err != nil {
			return 0, err
		}
		m, err := proc.Self.Memory(roots...)
		if err != nil {
			return 0, err
		}
		if change := m.Resident - before; before >= 0 && max(change, -change) <= m.Resident/200 {
			return m.Resident, nil
		}
		before = m.Resident
	}
	return before, nil
}

// firstBytes is how many connections are opened to find the median time to the
// first byte.
const firstBytes = 9

// first measures how long a new connection takes to its first byte on a path
// with delay.
func (b *bench) first(ctx context.Context, p *peer, tests []report.Test) {
	values, err := b.firstByte(ctx, p)
	b.add(p, report.First, values, "", err)
}

func (b *bench) firstByte(ctx context.Context, p *peer) (map[report.Metric]float64, error) {
	if err := b.need(ctx, &b.slow, "slow", b.roundTrip); err != nil {
		return nil, err
	}
	s, err := open(ctx, b.slow, p, b.in, b.profiles, b.tag("first"))
	if err != nil {
		return nil, err
	}
	defer s.close()
	// The path's own round trip, timers and all: a message that comes back.
	var path load.Pings
	if err := s.load(ctx, &path, "-do", "ping", "-direct", "-limit", "1s"); err != nil {
		return nil, fmt.Errorf("the path itself: %w", err)
	}
	var times []float64
	if err := s.load(ctx, &times, "-do", "first", "-streams", strconv.Itoa(firstBytes)); err != nil {
		return nil, fmt.Errorf("%w%s", err, s.said())
	}
	took, ok := report.Median(times)
	if !ok || path.P50 <= 0 {
		return nil, errors.New("nothing was measured")
	}
	return map[report.Metric]float64{report.FirstByte: took / path.P50, report.Path: path.P50}, nil
}

// The lossy link: 100 Mbit/s and a queue of 50 ms before it.
const (
	lossyTrip  = 50 * time.Millisecond
	lossyRate  = 100e6 / 8
	lossyQueue = lossyRate / 20
	lossyLimit = 20 * time.Second
)

// lossyLink measures how fast one stream is while packets are lost.
func (b *bench) lossyLink(ctx context.Context, p *peer, tests []report.Test) {
	values, note, err := b.goodput(ctx, p)
	b.add(p, report.Lossy, values, note, err)
}

func (b *bench) goodput(ctx context.Context, p *peer) (values map[report.Metric]float64, note string, err error) {
	if err := b.need(ctx, &b.lossy, "lossy", lossyTrip); err != nil {
		return nil, "", err
	}
	b.lossy.relay.SetFaults(netns.Faults{})
	s, err := open(ctx, b.lossy, p, b.in, b.profiles, b.tag("lossy"))
	if err != nil {
		return nil, "", err
	}
	defer s.close()
	values = make(map[report.Metric]float64)
	for _, m := range []struct {
		metric report.Metric
		do     string
		loss   float64
	}{
		{report.LossyDown0, "down", 0}, {report.LossyDown1, "down", 0.01}, {report.LossyDown3, "down", 0.03}, {report.LossyDown10, "down", 0.10},
		{report.LossyUp0, "up", 0}, {report.LossyUp1, "up", 0.01}, {report.LossyUp3, "up", 0.03}, {report.LossyUp10, "up", 0.10},
	} {
		b.lossy.relay.SetFaults(netns.Faults{Rate: lossyRate, Queue: lossyQueue, Loss: m.loss})
		var t load.Transfer
		err := s.load(ctx, &t, "-do", m.do, "-bytes", strconv.FormatUint(b.lossyBytes, 10), "-limit", lossyLimit.String())
		switch {
		case ctx.Err() != nil:
			return nil, "", ctx.Err()
		case err != nil:
			note += fmt.Sprintf("%s with %v %% lost: %v. ", m.do, 100*m.loss, err)
		case t.Seconds > 0:
			values[m.metric] = float64(t.Bytes) * 8 / 1e6 / t.Seconds
		}
	}
	if len(values) == 0 {
		return nil, "", errors.New(note)
	}
	return values, note, nil
}

// need makes a network with a long link if there is none yet.
func (b *bench) need(ctx context.Context, n **network, name string, roundTrip time.Duration) (err error) {
	if *n == nil {
		*n, err = newNetwork(ctx, b.lab, name, b.congestion, roundTrip/2)
	}
	return err
}

// clients measures what idle clients cost the server. Other peers would need a
// process for each client and are passed over.
func (b *bench) clients(ctx context.Context, p *peer, tests []report.Test) {
	if p.encapsulation == "" {
		return
	}
	values, err := b.idleClientCost(ctx, p)
	b.add(p, report.Clients, values, "", err)
}

// idleTime is over which the processor time of idle clients is counted: longer
// than keepalives are apart.
const idleTime = 30 * time.Second

func (b *bench) idleClientCost(ctx context.Context, p *peer) (map[report.Metric]float64, error) {
	s, err := open(ctx, b.fast, p, b.in, b.profiles, b.tag("clients"))
	if err != nil {
		return nil, err
	}
	defer s.close()
	d, err := config.LoadServer(filepath.Join(s.dir, "server"))
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(s.dir, "clients")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	names := make([]string, b.idleClients)
	for i := range names {
		names[i] = "idle" + strconv.Itoa(i)
	}
	links, err := d.InviteAll(names, time.Now(), time.Hour)
	if err != nil {
		return nil, err
	}
	for _, link := range links {
		if _, err := config.JoinClient(filepath.Join(dir, link.Name), link); err != nil {
			return nil, err
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
	}
	servers := pids(s.servers)
	before, err := settled(ctx, servers)
	if err != nil {
		return nil, err
	}
	many := s.start(s.client, "clients", s.self, clientsWord, "-dir", dir, "-encapsulation", p.encapsulation, "-each", strconv.Itoa(b.each))
	defer many.Kill()
	if err := ready(ctx, many, time.Duration(b.idleClients)*200*time.Millisecond+30*time.Second); err != nil {
		return nil, fmt.Errorf("connect %d clients: %w%s", b.idleClients, err, s.said())
	}
	// A client that was used lately holds connections ready for the next stream.
	if err := sleep(ctx, warm.IdleAfter+warm.ShrinkAfter); err != nil {
		return nil, err
	}
	after, err := settled(ctx, servers)
	if err != nil {
		return nil, err
	}
	cpu0, err1 := proc.Self.CPU(servers...)
	start := time.Now()
	err2 := sleep(ctx, idleTime)
	cpu1, err3 := proc.Self.CPU(servers...)
	if err := errors.Join(err1, err2, err3); err != nil {
		return nil, err
	}
	return map[report.Metric]float64{
		report.ServerClient: float64(after-before) / 1024 / float64(b.idleClients),
		report.ServerTotal:  float64(after) / 1e6,
		report.ServerIdle:   100 * (cpu1 - cpu0).Seconds() / time.Since(start).Seconds(),
	}, nil
}

// ready waits for a part of this program.
func ready(ctx context.Context, p *netns.Process, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if err := p.Stdout.Expect(ctx, "ready"); err != nil {
		return fmt.Errorf("%w: %s", err, p.Stderr)
	}
	return nil
}

// sleep waits, but not longer than ctx lives.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
