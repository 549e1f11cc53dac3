package main

import "github.com/spf13/cobra"

func newClient() *cobra.Command {
	return group("client", "Set up and run a client", newClientJoin(), newClientRun(), newClientCleanup(), newInstall("client"), newUninstall("client"))
}
