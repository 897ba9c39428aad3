"""What a user types. Each file parses a config and makes one call; nothing else imports this
package."""
