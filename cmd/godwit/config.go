package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/godwit-net/godwit/config"
)

func newConfig() *cobra.Command {
	return group("config", "Check and explain the settings", newCheck(), newConfigExample())
}

func newConfigExample() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "example ROLE",
		Short: "Print a server.toml or client.toml with every key explained",
		Long: `Prints the settings of ROLE, server or client, with every key explained and its
default. Each key is also a flag of "godwit ROLE run" and a variable of the
environment: forward in client.toml is --forward and GODWIT_CLIENT_FORWARD. The flag
goes before the variable, and that before the file. Items of a list are
separated by commas.`,
		Example: "  godwit config example client",
		Args:    takes("ROLE"),
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		text, ok := map[string]string{"server": config.ReferenceServer, "client": config.ReferenceClient}[args[0]]
		if !ok {
			return usage(cmd, args[0]+" is not a role", "use server or client")
		}
		_, err := fmt.Fprint(cmd.OutOrStdout(), text)
		return err
	}
	return cmd
}
