/** Wire shapes of microVMs (snake_case). */
export {}
