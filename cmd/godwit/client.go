package main

import (
	"github.com/spf13/cobra"

	"github.com/godwit-net/godwit/config"
)

func newClient() *cobra.Command {
	return group("client", "Set up and run a client", newClientJoin(), newClientRun(), newInstall("client"), newUninstall("client"))
}

// loadClient reads the folder that dir names.
func loadClient(dir func() (string, error)) (*config.ClientDir, error) {
	path, err := dir()
	if err != nil {
		return nil, err
	}
	return config.LoadClient(path)
}
