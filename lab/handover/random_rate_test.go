//go:build virtualtime

package handover

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/godwit-net/godwit/lab"
)

var (
	lossSeed  = flag.Uint64("loss-seed", 0, "play only the losses with this seed, and say what happens")
	lossCount = flag.Uint64("losses", 10, "how many random losses to play")
)

// TestRandomLosses fills links whose rate, queue, delay, loss, order and
// duplicates change as a seed says. Every byte has to arrive in order, what is
// kept stays within its bounds, and when the link is good again the streams end:
// whatever happened, nothing turns in circles.
func TestRandomLosses(t *testing.T) {
	if *lossSeed != 0 {
		playLosses(t, *lossSeed, true)
		return
	}
	for seed := uint64(1); seed <= *lossCount; seed++ {
		if !t.Run(fmt.Sprint(seed), func(t *testing.T) { playLosses(t, seed, false) }) {
			t.Errorf("losses %d failed; play them alone with -run TestRandomLosses -args -loss-seed %d", seed, seed)
		}
	}
}

func playLosses(t *testing.T, seed uint64, tell bool) {
	synctest.Test(t, func(t *testing.T) {
		s := &scene{t: t, tell: tell, rand: rand.New(rand.NewPCG(seed, 2)), start: time.Now(), at: make(map[string]*lab.Network)}
		s.r = time.Duration(10+s.rand.IntN(290)) * time.Millisecond
		s.w = newSeededWorld(t, seed, s.r)
		defer s.w.close()
		s.nets = []*lab.Network{s.w.wifi}
		s.m = s.w.join("laptop", 10)
		s.at["if0"] = s.w.wifi
		<-s.m.client.Ready()
		settle()
		change := func() {
			up, down := s.lossy(), s.lossy()
			s.say("up %+v, down %+v", up, down)
			s.w.wifi.SetLinks(up, down)
		}
		change()
		near, far := s.m.pair(7)
		flows := []*flow{newFlow(t, "down", far, near, pace{})}
		if s.rand.IntN(2) == 0 {
			flows = append(flows, newFlow(t, "up", near, far, pace{}))
		}
		s.say("%d streams", len(flows))
		for range 3 + s.rand.IntN(6) {
			time.Sleep(time.Duration(s.rand.IntN(3000)) * time.Millisecond)
			change()
			s.bounded()
		}
		s.w.wifi.SetLink(lab.Link{Delay: s.r / 2, Rate: 4 << 20})
		healed := time.Now()
		for _, f := range flows {
			f.end()
		}
		if d := time.Since(healed); d > 2*time.Minute {
			t.Errorf("the streams end %v after the link is good", d)
		}
		near.Close()
		far.Close()
		s.bounded()
		time.Sleep(10 * time.Second)
		if st := s.m.client.Status(); st.State != "connected" || st.BytesWaiting > 0 {
			t.Errorf("at the end the client is %s and has %d bytes waiting", st.State, st.BytesWaiting)
		}
	})
}

// lossy draws a direction of a link that has a rate and a queue.
func (s *scene) lossy() lab.Link {
	l := s.link()
	l.Rate = 1 << (17 + s.rand.IntN(6)) // 1 to 34 Mbit/s
	l.Queue = 8<<10 + int(float64(l.Rate)*s.r.Seconds()*2*s.rand.Float64())
	if s.rand.IntN(3) == 0 {
		l.Loss, l.Burst = 0.1*s.rand.Float64(), 1+s.rand.IntN(6)
	}
	return l
}
