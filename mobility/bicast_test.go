package mobility

import (
	"testing"
	"time"

	"github.com/godwit-net/godwit/mobility/regmsg"
)

// uses gives the actions Use since the last call.
func (bt *bindingTest) uses() (us []Use) {
	for _, a := range bt.b.Actions() {
		if u, ok := a.(Use); ok {
			us = append(us, u)
		}
	}
	return us
}

func TestSimultaneousBindings(t *testing.T) {
	both := func(m *regmsg.Request) { m.Simultaneous = true }
	for _, tt := range []struct {
		name   string
		before string // carrier of the registration before
		proven bool
		bicast time.Duration
		change func(*regmsg.Request)
		also   CarrierID
		lasts  time.Duration
	}{
		{"asked for", "u1", true, 0, both, 1, 2 * time.Second},
		{"shorter by configuration", "u1", true, time.Second, both, 1, time.Second},
		{"never longer", "u1", true, time.Hour, both, 1, 2 * time.Second},
		{"switched off", "u1", true, -1, both, 0, 0},
		{"not asked for", "u1", true, 0, nil, 0, 0},
		{"an address that nobody has proven", "u1", false, 0, both, 0, 0},
		{"a stream might hold up both", "t1", true, 0, both, 0, 0},
	} {
		bt := newBindingTest(t)
		bt.b = NewBinding(BindingConfig{HomeAddress: homeAddress, HomeAgent: homeAgent, Bicast: tt.bicast})
		bt.copies(1, tt.before)
		if tt.proven {
			if err := bt.confirm(1, tt.before, nil); err != nil {
				t.Fatal(err)
			}
		}
		bt.after(time.Minute)
		bt.uses()
		if err := bt.copy(2, "t2", 1400, tt.change); err != nil {
			t.Fatal(err)
		}
		if us := bt.uses(); len(us) != 1 || us[0].ID != 2 || us[0].Also != tt.also || us[0].AlsoFor != tt.lasts {
			t.Errorf("%s: %+v", tt.name, us)
		}
		// The time runs from the first copy, whichever takes over.
		bt.after(500 * time.Millisecond)
		if err := bt.copy(2, "u3", 1400, tt.change); err != nil {
			t.Fatal(err)
		}
		left := max(0, tt.lasts-500*time.Millisecond)
		if us := bt.uses(); len(us) != 1 || us[0].ID != 3 || us[0].Also != tt.also || us[0].AlsoFor != left {
			t.Errorf("%s, another takes over: %+v", tt.name, us)
		}
	}
}

func TestClientAsksForSimultaneousBindings(t *testing.T) {
	for _, tt := range []struct {
		trigger Trigger
		usable  bool
		want    bool
	}{
		{TriggerAddress, true, true},
		{TriggerAddress, false, false},
		{TriggerSilence, true, false},
		{TriggerAsked, true, false},
	} {
		rt := provisionalTest(t, tt.trigger, tt.usable)
		if got := rt.request[rt.last[udp]].Simultaneous; got != tt.want {
			t.Errorf("%s, the old path usable %v: asks %v", tt.trigger, tt.usable, got)
		}
	}
}
