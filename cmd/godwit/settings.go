package main

import (
	"errors"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/godwit-net/godwit/config"
)

// A settingValue is the flag of one key.
type settingValue struct {
	kind  config.Kind
	value string
	given bool
}

// Set takes a value; a list grows by each. What is wrong with it says package
// config, which reads it as it reads the file.
func (s *settingValue) Set(v string) error {
	if s.kind == config.List && s.given {
		v = s.value + "," + v
	}
	s.value, s.given = v, true
	return nil
}

// String gives what was set.
func (s *settingValue) String() string { return s.value }

// Type is for the help.
func (s *settingValue) Type() string {
	switch s.kind {
	case config.Flag:
		return "bool"
	case config.List:
		return "LIST"
	}
	return "TEXT"
}

// settingFlags adds a flag for every key of a role's settings and gives what
// those that were used say.
func settingFlags(cmd *cobra.Command, role string) func() []config.Override {
	docs := config.Docs(role)
	flags := map[string]*settingValue{}
	keys := config.Keys(role)
	for _, k := range keys {
		v := &settingValue{kind: k.Kind}
		flags[k.Name] = v
		about, _, _ := strings.Cut(docs[k.Name], ". ")
		f := &pflag.Flag{
			Name: k.Flag(), Value: v,
			// The library would take a word in backquotes for the value's name.
			Usage: strings.ReplaceAll(strings.TrimSuffix(about, "."), "`", "'") + " (" + k.Name + ", " + k.Variable(role) + ")",
		}
		if k.Kind == config.Flag {
			f.NoOptDefVal = "true"
		}
		cmd.Flags().AddFlag(f)
	}
	return func() []config.Override {
		var over []config.Override
		for _, k := range keys {
			if v := flags[k.Name]; v.given {
				over = append(over, config.Override{Key: k.Name, Value: v.value, From: "--" + k.Flag()})
			}
		}
		return over
	}
}

// overrides are the settings of a role that go before its file: flags before the
// environment.
func overrides(role string, flags []config.Override) ([]config.Override, error) {
	over, err := config.Environment(role, os.Environ())
	return append(over, flags...), err
}

// loadClient reads the folder that dir names, with the environment and flags
// before it.
func loadClient(dir func() (string, error), flags ...config.Override) (*config.ClientDir, error) {
	path, err := dir()
	if err != nil {
		return nil, err
	}
	over, err := overrides("client", flags)
	if err != nil {
		return nil, err
	}
	return config.LoadClient(path, over...)
}

// loadServer reads the folder that dir names, with the environment and flags
// before it.
func loadServer(dir func() (string, error), flags ...config.Override) (*config.ServerDir, error) {
	path, err := dir()
	if err != nil {
		return nil, err
	}
	over, err := overrides("server", flags)
	if err != nil {
		return nil, err
	}
	return config.LoadServer(path, over...)
}

// flagError makes what is wrong with a flag's value a mistake of the command
// line.
func flagError(cmd *cobra.Command, err error) error {
	var e *config.Error
	if errors.As(err, &e) && strings.HasPrefix(e.Where, "--") {
		return usage(cmd, "wrong "+e.Where+": "+e.What, e.Do)
	}
	return err
}
