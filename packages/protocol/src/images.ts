/** Wire shapes of images (snake_case). */
export {}
